"""Read a run's tables into Arrow: all Parquet files of a folder, schema version checked.

A table becomes a data frame by `.to_pandas()`.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA_VERSION = "1"

# The folder that each table lies in.
FOLDERS = {"tasks": "log", "evaluations": "evaluations"}


def load(run_dir: str | Path, table: str) -> pa.Table:
    """Read one table of a run.

    Args:
        run_dir: of the run; it may still be at work.
        table: one of FOLDERS.

    Returns:
        All rows that are there now.

    Raises:
        KeyError: an unknown table.
        FileNotFoundError: the run has no such rows yet.
        ValueError: a file of another schema version.
    """
    folder = Path(run_dir) / FOLDERS[table]
    files = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))
    if not files:
        raise FileNotFoundError(f"{folder} must hold Parquet files, got none: has the run begun?")
    tables = []
    for path in files:
        rows = pq.read_table(path)
        version = (rows.schema.metadata or {}).get(b"schema_version", b"none").decode()
        if version != SCHEMA_VERSION:
            raise ValueError(f"{path} must have schema_version {SCHEMA_VERSION}, got {version}")
        tables.append(rows)
    return pa.concat_tables(tables)
