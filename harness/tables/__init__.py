"""Tables of a run: their schemas and their Parquet files."""
