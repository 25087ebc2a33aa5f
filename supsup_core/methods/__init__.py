"""Mask finders: rules from real scores to masks, one per file, listed in supsup_core/names.py."""
