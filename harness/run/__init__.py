"""One run: its specification, its directory, and the checks that can refuse a start."""
