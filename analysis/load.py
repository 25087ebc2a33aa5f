"""Read the tables of one or several runs into Arrow, and compare runs.

A run is a folder, or a URL such as s3://bucket/run or gs://bucket/run. For a URL, Arrow takes the
server and the credentials from the environment. `.to_pandas()` or `polars.from_arrow(table)`
converts a table to a data frame. An error is raised if another version of the program wrote a file,
if a file belongs to another run, or if a file is a copy with another name.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileSystem, LocalFileSystem

from analysis.columns import SCHEMA_VERSIONS, wrong_column
from analysis.reading import check_file, parse_configuration, read_text

# Table -> its folder in the run directory. A search has the table `trials` alone.
FOLDERS = {
    "tasks": "log",
    "evaluations": "evaluations",
    "queries": "queries",
    "reservoir": "reservoir",
    "recovery": "recovery",
    "allocation": "allocation",
    "failures": "failures",
    "trials": "trials",
}


def load(run_dir: str | Path, table: str) -> pa.Table:
    """Read one table of a run.

    Args:
        run_dir: the run directory, a path or a URL; see as_path. The driver of the run may still be
            working.
        table: a key of FOLDERS.

    Returns:
        All rows that the run has written so far.

    Raises:
        KeyError: the table is unknown.
        FileNotFoundError: the run has written no file of this table yet.
        ValueError: the URL names no folder, or a file is refused: it is no regular file or no whole
            Parquet file, has another schema version or other columns, belongs to another run, or is
            a copy of another file.
        OSError: the server of a URL does not answer, or refuses the request.
    """
    files, root = file_system(run_dir)
    folder = f"{root}/{FOLDERS[table]}"
    if isinstance(files, LocalFileSystem):  # a FileSelector would leave out links to missing files
        found = files.get_file_info([str(path) for path in Path(folder).glob("*.parquet")])
    else:
        found = files.get_file_info(FileSelector(folder, allow_not_found=True))
    visible = {one.base_name: one for one in found if not one.base_name.startswith(".")}
    tables = [one for name, one in sorted(visible.items()) if name.endswith(".parquet")]
    for one in tables:
        check_file(files, one)
    paths = [one.path for one in tables]
    if not paths:
        raise FileNotFoundError(
            f"{run_dir}/{FOLDERS[table]} must hold Parquet files, got none: check the path, and "
            "that the run has written this table"
        )
    # A run may have one file per task. combine_chunks joins the files into one chunk per column.
    parts = [_read(files, path, table) for path in paths]
    _check_origins(parts, paths, _run_id(files, root))
    return pa.concat_tables(
        [part.replace_schema_metadata(_without_origin(part)) for part in parts]
    ).combine_chunks()


def _run_id(files: FileSystem, root: str) -> str | None:
    """Read the identity of a run from its mask store; None if the folder has no store."""
    try:
        with files.open_input_file(f"{root}/masks.zarr/zarr.json") as file:
            found = json.loads(file.read())["attributes"]["run_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(found)


def _check_origins(parts: Sequence[pa.Table], paths: Sequence[str], run_id: str | None) -> None:
    """Check that the metadata of each file have the file's own name and the identity of the run.

    Args:
        parts: the content of the files.
        paths: the paths of the files.
        run_id: the identity of the run; None: use the identity in the first file.
    """
    for part, path in zip(parts, paths, strict=True):
        name, of_run = (_metadata(part.schema, key) for key in ("name", "run_id"))
        if f"{name}.parquet" != path.rpartition("/")[2]:
            raise ValueError(
                f"{path} must have its own name in its metadata, got {name}: remove the copy"
            )
        run_id = run_id or of_run
        if of_run != run_id:
            raise ValueError(
                f"{path} must belong to the run {run_id}, got a file of the run {of_run}: remove "
                "the file"
            )


def _metadata(schema: pa.Schema, key: str) -> str:
    value: bytes = (schema.metadata or {}).get(key.encode(), b"none")
    return value.decode(errors="replace")


def _without_origin(part: pa.Table) -> dict[bytes, bytes]:
    """Return the metadata that are the same in all files of a table."""
    metadata = part.schema.metadata
    return {key: metadata[key] for key in metadata if key not in (b"name", b"run_id")}


def file_system(run_dir: str | Path) -> tuple[FileSystem, str]:
    """Return the file system of a run, and the path of the run directory in this file system.

    Raises:
        ValueError: the URL names no folder.
    """
    # To read, Arrow's file systems are enough. The harness also writes, and uses obstore for this,
    # because Arrow cannot write an object on the condition that the object does not exist yet.
    where = run_dir if isinstance(run_dir, Path) else as_path(run_dir)
    if isinstance(where, Path):
        return LocalFileSystem(), str(where)
    try:
        files, folder = FileSystem.from_uri(quote(where, safe=":/"))
    except pa.ArrowException:
        folder = ""
    if not folder:
        raise ValueError(
            f"{where} must be a folder, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER, got another "
            "URL: correct the URL"
        )
    return files, folder


def as_path(typed: str) -> Path | str:
    """Convert a typed run directory to a path or a URL, by the same rules as the harness.

    Args:
        typed: a path or a URL. If it is in quotes, the quotes are removed. A backslash before a
            quote inside them is removed too. ~ and ~USER at the start mean a home folder.

    Returns:
        An absolute path, or the URL.

    Raises:
        ValueError: the path begins with ~USER, and the user does not exist.
    """
    text, quote = typed, typed[:1]
    if len(typed) > 1 and quote in ("'", '"') and typed[-1] == quote:
        inner = typed[1:-1]
        escapes = re.findall(rf"(\\*)({quote}|\Z)", inner)
        if all(len(backslashes) % 2 == bool(then) for backslashes, then in escapes):
            halved = rf"\\+(?={quote}|\Z)"
            text = re.sub(halved, lambda found: found[0][: len(found[0]) // 2], inner)
    if "://" in text:
        return text
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(
            f"run_dir must name an existing user after ~, got {typed}: write the folder's full path"
        ) from error


def _read(files: FileSystem, path: str, table: str) -> pa.Table:
    """Read one file of a table."""
    try:
        with files.open_input_file(path) as file:
            rows = pq.ParquetFile(file).read(use_threads=False)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{path} must be a whole Parquet file, got a damaged file: remove it"
        ) from error
    version = _metadata(rows.schema, "schema_version")
    if version != SCHEMA_VERSIONS[table]:
        raise ValueError(
            f"{path} must have schema_version {SCHEMA_VERSIONS[table]}, got {version}: read the "
            "run with the code of the commit in its provenance.json"
        )
    if wrong := wrong_column(table, rows.schema):
        raise ValueError(f"{path} must have the column {wrong}: remove the file")
    return rows


def load_runs(run_dirs: Sequence[str | Path], table: str) -> pa.Table:
    """Read one table of several runs.

    Args:
        run_dirs: the run directories, paths or URLs.
        table: a key of FOLDERS.

    Returns:
        The rows of all runs. The new first column `run` has the run directory of each row, as
        given.

    Raises:
        KeyError, FileNotFoundError, ValueError, OSError: see load.
    """
    parts = []
    for run_dir in run_dirs:
        rows = load(run_dir, table)
        parts.append(rows.add_column(0, "run", pa.array([str(run_dir)] * len(rows), pa.string())))
    return pa.concat_tables(parts)


def configuration(run_dir: str | Path) -> dict[str, Any]:
    """Read a run's configuration as a mapping from dotted key, such as train.steps, to value.

    Raises:
        OSError: there is no config.yaml, or it cannot be read.
        ValueError: the end of the file is missing, or the file is no configuration.
    """
    return read_configuration(run_dir)[1]


def read_configuration(run_dir: str | Path) -> tuple[str, dict[str, Any]]:
    """Read a run's config.yaml.

    Returns:
        Two values: the text of the file, and a mapping from dotted key, such as train.steps, to
        value.

    Raises:
        OSError: there is no config.yaml, or it cannot be read.
        ValueError: the end of the file is missing, or the file is no configuration.
    """
    files, root = file_system(run_dir)
    path = f"{root}/config.yaml"
    text = read_text(files, path)
    return text, dict(_leaves(parse_configuration(text, path), ""))


def differences(run_dirs: Sequence[str | Path]) -> dict[str, list[Any]]:
    """Find the configuration keys in which runs differ.

    Args:
        run_dirs: the run directories, paths or URLs.

    Returns:
        A mapping from dotted key to a list with the value of each run, in the order of run_dirs.
        The value is None if a run does not have the key. Keys are sorted by name. The key `run_dir`
        always differs, and is left out.
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
