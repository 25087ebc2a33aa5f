"""Mask finders: rules that compute masks from scores. supsup_core/names.py lists the finders."""
