"""The tables of a run: their schemas, and their files."""
