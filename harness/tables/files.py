"""Tables as Parquet files: written whole, read and checked."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from harness.places.durable import write_durably
from harness.places.places import Place, each
from harness.tables.schemas import EVALUATIONS

# A table of few rows takes kilobytes: many files are put together as they are read.
_FILES_TOGETHER = 256

# What version 2 says of evaluations that were written before it.
_SINCE_VERSION_2 = {"num_distractors": 0, "agreement": None}


def _parquet(table: pa.Table) -> bytes:
    if b"schema_version" not in (table.schema.metadata or {}):
        raise ValueError("table must have a schema of this module, got one without schema_version")
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def write_table(table: pa.Table, path: Place) -> None:
    """Write a table as one Parquet file, in place of the one that is there.

    Args:
        table: with a schema of this module.
        path: of the file, in a folder that exists.

    Raises:
        ValueError: the table has no schema_version.
        OSError: see write_durably.
    """
    write_durably(path, _parquet(table))


def create_table_file(table: pa.Table, path: Place) -> None:
    """Write a table as one new Parquet file.

    Args:
        table: with a schema of this module.
        path: of the file, in a folder that exists.

    Raises:
        FileExistsError: the file exists; it is left as it is.
        ValueError: the table has no schema_version.
        OSError: see write_durably.
    """
    write_durably(path, _parquet(table), exclusive=True)


def table_files(folder: Place) -> list[Place]:
    """The Parquet files of a table, by name; none where there is no such folder."""
    visible = [path for path in folder.glob("*.parquet") if not path.name.startswith(".")]
    return sorted(visible, key=lambda path: path.name)


def read_table_file(path: Place, schema: pa.Schema) -> pa.Table:
    """Read one file of a table; one of an older version comes as it would be written now.

    Args:
        path: of the file.
        schema: one of SCHEMAS.

    Raises:
        ValueError: the file is no whole Parquet file, or has an unknown schema version
            or other columns.
        OSError: the file cannot be read.
    """
    data = path.read_bytes()  # apart from the parsing: a failing disk is no damaged file
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        table = file.read(use_threads=False)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise ValueError(f"{path} is not a whole Parquet file") from error
    expected = schema.metadata[b"schema_version"].decode()
    found = (table.schema.metadata or {}).get(b"schema_version", b"none").decode(errors="replace")
    if (found, expected) == ("1", "2"):  # evaluations alone have a second version
        table = _upgraded(table)
    elif found != expected:
        raise ValueError(f"{path} must have schema_version {expected}, got {found}")
    if not table.schema.equals(schema):
        raise ValueError(
            f"{path} must have the columns {_columns(schema)}, got {_columns(table.schema)}"
        )
    return pa.Table.from_arrays(table.columns, schema=schema)


def _upgraded(table: pa.Table) -> pa.Table:
    """Evaluations of version 1 with the columns of version 2; anything else as it is."""
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
    """Read a table: all its files, in the order of their names.

    Args:
        folder: may be missing.
        schema: one of SCHEMAS.
        columns: to keep; None: all.

    Returns:
        the rows of all files; no rows where there is no file.

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
