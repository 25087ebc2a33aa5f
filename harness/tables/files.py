"""Write tables as Parquet files, read tables back and check them."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import UserError
from harness.places.durable import write_durably
from harness.places.places import Place, each
from harness.places.reading import read_bytes

# Even a table of few rows takes kilobytes of memory. So read_tables reads this many files at a time
# and merges their tables.
_FILES_TOGETHER = 256
# Tables with many rows have columns of these types. Their values differ from row to row, so a
# dictionary would be as large as the values: a row of the table `queries` takes 8 bytes with these
# encodings, and 16 bytes with dictionaries (1975 queries among 2500 masks, without the metadata).
_ENCODINGS = {pa.int32(): "DELTA_BINARY_PACKED", pa.float32(): "BYTE_STREAM_SPLIT"}


def _parquet(table: pa.Table, path: Place, run_id: str) -> bytes:
    """Return the bytes of a Parquet file. Its metadata have the file's name and the run_id."""
    metadata = table.schema.metadata or {}
    if b"schema_version" not in metadata:
        raise ValueError("table must have schema_version, got none: use a schema of harness/tables")
    stamped = table.replace_schema_metadata({**metadata, "run_id": run_id, "name": _name(path)})
    sink = pa.BufferOutputStream()
    encodings = {
        column.name: _ENCODINGS[column.type]
        for column in stamped.schema
        if column.type in _ENCODINGS
    }
    pq.write_table(
        stamped,
        sink,
        compression="zstd",
        use_dictionary=[name for name in stamped.column_names if name not in encodings],
        column_encoding=encodings,
        write_page_checksum=True,
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _name(path: Place) -> str:
    """Return the name of a file without .parquet, which is the name of its work unit."""
    return path.name.removesuffix(".parquet")


def write_table(table: pa.Table, path: Place, run_id: str) -> None:
    """Write a table as one Parquet file. An existing file is replaced.

    Args:
        table: a table with a schema of harness/tables.
        path: path of the file; its folder must exist.
        run_id: the identity of the run that the file belongs to.

    Raises:
        ValueError: the table has no schema_version.
        OSError: see write_durably.
    """
    write_durably(path, _parquet(table, path, run_id))


def create_table_file(table: pa.Table, path: Place, run_id: str) -> None:
    """Write a table as one new Parquet file.

    Args:
        table: a table with a schema of harness/tables.
        path: path of the file; its folder must exist.
        run_id: the identity of the run that the file belongs to.

    Raises:
        FileExistsError: the file exists; it stays unchanged.
        ValueError: the table has no schema_version.
        OSError: see write_durably.
    """
    write_durably(path, _parquet(table, path, run_id), exclusive=True)


def table_files(folder: Place) -> list[Place]:
    """List the visible Parquet files of a table, sorted by name; [] if the folder is missing."""
    visible = [path for path in folder.glob("*.parquet") if not path.name.startswith(".")]
    return sorted(visible, key=lambda path: path.name)


def read_table_file(path: Place, schema: pa.Schema, *, run_id: str | None = None) -> pa.Table:
    """Read one file of a table.

    Args:
        path: path of the file.
        schema: the table's schema.
        run_id: the identity of the run that the file must belong to; None: any run.

    Raises:
        ValueError: the file is damaged, belongs to another table or another run, or is a copy with
            another name. Such a file may be computed again.
        UserError: another version of this program wrote the file, so it is not damaged and must not
            be computed again. Or the path is no regular file (for example, a link).
        OSError: the file cannot be read.
    """
    # Read before the try block: an error of the disk does not mean that the file is damaged.
    data = read_bytes(path)
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        table = file.read(use_threads=False)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise ValueError(f"{path} is not a whole Parquet file") from error
    _check_version(path, table.schema, schema)
    if not table.schema.equals(schema):
        raise ValueError(
            f"{path} must have the columns {_columns(schema)}, got {_columns(table.schema)}"
        )
    _check_origin(path, table.schema, run_id)
    return pa.Table.from_arrays(table.columns, schema=schema)


def _check_origin(path: Place, found: pa.Schema, run_id: str | None) -> None:
    """Check the run and the name in the metadata of a file."""
    name, of_run = _metadata(found, "name"), _metadata(found, "run_id")
    if name != _name(path):
        raise ValueError(f"{path} must have its own name in its metadata, got a copy of {name}")
    if run_id not in (None, of_run):
        raise ValueError(f"{path} must belong to the run {run_id}, got a file of the run {of_run}")


def _check_version(path: Place, found: pa.Schema, schema: pa.Schema) -> None:
    """Check the table's name and version in the metadata of a file."""
    for key in ("table", "schema_version"):
        expected, got = (_metadata(one, key) for one in (schema, found))
        if got == expected:
            continue
        message = f"{path} must have {key} {expected}, got {got}"
        if key == "schema_version" and got.isdecimal():
            raise UserError(
                f"{message}: choose another run_dir, or use the program version that wrote this "
                "file"
            )
        raise ValueError(message)


def _metadata(schema: pa.Schema, key: str) -> str:
    value: bytes = (schema.metadata or {}).get(key.encode(), b"none")
    return value.decode(errors="replace")


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def read_tables(
    folder: Place,
    schema: pa.Schema,
    columns: Sequence[str] | None = None,
    *,
    run_id: str | None = None,
) -> pa.Table:
    """Read all files of a table, in the order of their names.

    Args:
        folder: folder of the table, which may be missing.
        schema: the table's schema.
        columns: names of the columns to keep; None keeps all columns.
        run_id: the identity of the run that the files must belong to; None: any run.

    Returns:
        The rows of all files; an empty table if there is no file.

    Raises:
        ValueError, UserError: see read_table_file.
        OSError: a file cannot be read.
    """
    kept = schema.names if columns is None else list(columns)
    files, parts = table_files(folder), [schema.empty_table().select(kept)]
    for first in range(0, len(files), _FILES_TOGETHER):
        some = files[first : first + _FILES_TOGETHER]
        tables = each(
            lambda path: read_table_file(path, schema, run_id=run_id).select(kept), some, folder
        )
        parts.append(pa.concat_tables(tables).combine_chunks())
    return pa.concat_tables(parts)
