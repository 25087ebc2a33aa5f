"""Mask finders: how real scores become a mask, one a file; supsup_core/names.py names them."""
