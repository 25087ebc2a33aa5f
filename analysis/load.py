"""Read a run's tables into Arrow: all Parquet files of a folder, schema version checked.

A table becomes a data frame by `.to_pandas()`. Files of an older version are brought up to date.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA_VERSIONS = {"tasks": "1", "evaluations": "2", "reservoir": "1", "failures": "1"}

# The folder that each table lies in.
FOLDERS = {
    "tasks": "log",
    "evaluations": "evaluations",
    "reservoir": "reservoir",
    "failures": "failures",
}


# What version 2 of the evaluations added: behind which column, and what held before.
_SINCE_VERSION_2 = (
    ("num_tasks", pa.field("num_distractors", pa.int64(), nullable=False), 0),
    ("bits_read_fraction", pa.field("agreement", pa.float64()), None),
)


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
        ValueError: a file of an unknown schema version.
    """
    folder, expected = Path(run_dir) / FOLDERS[table], SCHEMA_VERSIONS[table]
    files = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))
    if not files:
        raise FileNotFoundError(f"{folder} must hold Parquet files, got none: has the run begun?")
    tables = []
    for path in files:
        rows = pq.read_table(path)
        version = (rows.schema.metadata or {}).get(b"schema_version", b"none").decode()
        if (table, version) == ("evaluations", "1"):
            rows = _upgraded(rows)
        elif version != expected:
            raise ValueError(f"{path} must have schema_version {expected}, got {version}")
        tables.append(rows)
    return pa.concat_tables(tables)


def _upgraded(rows: pa.Table) -> pa.Table:
    """Evaluations of version 1 with the columns of version 2."""
    for before, column, value in _SINCE_VERSION_2:
        values = pa.array([value] * len(rows), column.type)
        rows = rows.add_column(rows.schema.get_field_index(before) + 1, column, values)
    return rows.replace_schema_metadata(rows.schema.metadata | {b"schema_version": b"2"})
