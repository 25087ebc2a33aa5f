"""Data sets by name, and the sources of their files."""
