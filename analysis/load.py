"""Read the tables of one run or many into Arrow, schema version checked, and compare runs.

A run lies in a folder or at a URL, s3://bucket/run or gs://bucket/run, whose server and
credentials Arrow takes from the environment. A table becomes a data frame by `.to_pandas()`, or by
`polars.from_arrow(table)`. Files of an older version are brought up to date.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pyarrow.fs import FileSelector, FileSystem, LocalFileSystem

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
        run_dir: of the run, a path or a URL; it may still be at work.
        table: one of FOLDERS.

    Returns:
        All rows that are there now.

    Raises:
        KeyError: an unknown table.
        FileNotFoundError: the run has no such rows yet.
        ValueError: a file of an unknown schema version.
        OSError: the server of a URL does not answer, or refuses.
    """
    files, root = _file_system(run_dir)
    folder = f"{root}/{FOLDERS[table]}"
    found = files.get_file_info(FileSelector(folder, allow_not_found=True))
    visible = {one.base_name: one.path for one in found if not one.base_name.startswith(".")}
    paths = [path for name, path in sorted(visible.items()) if name.endswith(".parquet")]
    if not paths:
        raise FileNotFoundError(
            f"{run_dir}/{FOLDERS[table]} must hold Parquet files, got none: has the run begun?"
        )
    # One chunk a column: a run may have a file a task.
    return pa.concat_tables([_read(files, path, table) for path in paths]).combine_chunks()


def _file_system(run_dir: str | Path) -> tuple[FileSystem, str]:
    """Where a run lies, and the way to it there."""
    where = str(run_dir)
    found: tuple[FileSystem, str] = (LocalFileSystem(), where)
    return FileSystem.from_uri(where) if "://" in where else found


def _read(files: FileSystem, path: str, table: str) -> pa.Table:
    """One file of a table, as one of the present version."""
    with files.open_input_file(path) as file:
        rows = pq.ParquetFile(file).read(use_threads=False)
    version = (rows.schema.metadata or {}).get(b"schema_version", b"none").decode()
    if (table, version) == ("evaluations", "1"):
        return _upgraded(rows)
    if version != SCHEMA_VERSIONS[table]:
        raise ValueError(f"{path} must have schema_version {SCHEMA_VERSIONS[table]}, got {version}")
    return rows


def load_runs(run_dirs: Sequence[str | Path], table: str) -> pa.Table:
    """Read one table of several runs.

    Args:
        run_dirs: of the runs.
        table: one of FOLDERS.

    Returns:
        The rows of all, behind a first column `run`: the run's directory as it was given.

    Raises:
        KeyError, FileNotFoundError, ValueError: see load.
    """
    parts = []
    for run_dir in run_dirs:
        rows = load(run_dir, table)
        parts.append(rows.add_column(0, "run", pa.array([str(run_dir)] * len(rows), pa.string())))
    return pa.concat_tables(parts)


def configuration(run_dir: str | Path) -> dict[str, Any]:
    """A run's configuration, flat: dotted names to values."""
    files, root = _file_system(run_dir)
    with files.open_input_file(f"{root}/config.yaml") as file:
        return dict(_leaves(yaml.safe_load(file.read()), ""))


def differences(run_dirs: Sequence[str | Path]) -> dict[str, list[Any]]:
    """The keys in which runs differ.

    Args:
        run_dirs: of the runs.

    Returns:
        By key in the order of the alphabet, a value for each run, None where a run has no such
        key; without `run_dir`, in which all differ.
    """
    found = [configuration(run_dir) for run_dir in run_dirs]
    keys = sorted(set().union(*found) - {"run_dir"})
    values = {key: [one.get(key) for one in found] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def _leaves(tree: dict[str, Any], prefix: str) -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves += _leaves(value, f"{prefix}{key}.")
        else:
            leaves.append((f"{prefix}{key}", value))
    return leaves


def _upgraded(rows: pa.Table) -> pa.Table:
    """Evaluations of version 1 with the columns of version 2."""
    for before, column, value in _SINCE_VERSION_2:
        values = pa.array([value] * len(rows), column.type)
        rows = rows.add_column(rows.schema.get_field_index(before) + 1, column, values)
    return rows.replace_schema_metadata(rows.schema.metadata | {b"schema_version": b"2"})
