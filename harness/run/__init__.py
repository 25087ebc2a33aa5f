"""One run: what its workers know, its directory, and what it refuses."""
