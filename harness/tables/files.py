"""Write tables as Parquet files, read tables back and check them."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from harness.places.durable import write_durably
from harness.places.places import Place, each
from harness.tables.schemas import EVALUATIONS

# Even a table of few rows takes kilobytes in memory, so read_tables merges files in groups.
_FILES_TOGETHER = 256

# Columns that version 2 added to the evaluations, with their values for rows of version 1.
_SINCE_VERSION_2 = {"num_distractors": 0, "agreement": None}


def _parquet(table: pa.Table) -> bytes:
    if b"schema_version" not in (table.schema.metadata or {}):
        raise ValueError(
            "table must have schema_version, got none: use a schema of harness/tables/schemas.py"
        )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def write_table(table: pa.Table, path: Place) -> None:
    """Write a table as one Parquet file, and replace an existing file.

    Args:
        table: a table with a schema of harness/tables/schemas.py.
        path: path of the file; its folder must exist.

    Raises:
        ValueError: the table has no schema_version.
        OSError: see write_durably.
    """
    write_durably(path, _parquet(table))


def create_table_file(table: pa.Table, path: Place) -> None:
    """Write a table as one new Parquet file.

    Args:
        table: a table with a schema of harness/tables/schemas.py.
        path: path of the file; its folder must exist.

    Raises:
        FileExistsError: the file exists; it stays unchanged.
        ValueError: the table has no schema_version.
        OSError: see write_durably.
    """
    write_durably(path, _parquet(table), exclusive=True)


def table_files(folder: Place) -> list[Place]:
    """List the visible Parquet files of a table, by name; none if the folder is missing."""
    visible = [path for path in folder.glob("*.parquet") if not path.name.startswith(".")]
    return sorted(visible, key=lambda path: path.name)


def read_table_file(path: Place, schema: pa.Schema) -> pa.Table:
    """Read one file of a table, and convert rows of an older version to the current schema.

    Args:
        path: path of the file.
        schema: the table's current schema.

    Raises:
        ValueError: the file is damaged, or has an unknown schema version or other columns.
        OSError: the file cannot be read.
    """
    # Read before the try block: an error of the disk does not mean that the file is damaged.
    data = path.read_bytes()
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        table = file.read(use_threads=False)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise ValueError(f"{path} is not a whole Parquet file") from error
    expected = schema.metadata[b"schema_version"].decode()
    found = (table.schema.metadata or {}).get(b"schema_version", b"none").decode(errors="replace")
    if (found, expected) == ("1", "2"):  # only the evaluations have a second version
        table = _upgraded(table)
    elif found != expected:
        raise ValueError(f"{path} must have schema_version {expected}, got {found}")
    if not table.schema.equals(schema):
        raise ValueError(
            f"{path} must have the columns {_columns(schema)}, got {_columns(table.schema)}"
        )
    return pa.Table.from_arrays(table.columns, schema=schema)


def _upgraded(table: pa.Table) -> pa.Table:
    """Add the columns of version 2 to evaluations of version 1; return other tables unchanged."""
    if table.column_names != [name for name in EVALUATIONS.names if name not in _SINCE_VERSION_2]:
        return table
    for name, value in _SINCE_VERSION_2.items():
        place = EVALUATIONS.get_field_index(name)
        column = EVALUATIONS.field(place)
        table = table.add_column(place, column, pa.array([value] * len(table), column.type))
    return table


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def read_tables(folder: Place, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read all files of a table, in the order of their names.

    Args:
        folder: folder of the table, which may be missing.
        schema: the table's current schema.
        columns: names of the columns to keep; None keeps all columns.

    Returns:
        The rows of all files; an empty table if there is no file.

    Raises:
        ValueError: see read_table_file.
        OSError: a file cannot be read.
    """
    kept = schema.names if columns is None else list(columns)
    files, parts = table_files(folder), [schema.empty_table().select(kept)]
    for first in range(0, len(files), _FILES_TOGETHER):
        some = files[first : first + _FILES_TOGETHER]
        tables = each(lambda path: read_table_file(path, schema).select(kept), some, folder)
        parts.append(pa.concat_tables(tables).combine_chunks())
    return pa.concat_tables(parts)
