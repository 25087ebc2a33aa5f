"""Data sets by name, and where their files come from."""
