"""Read the files of a run safely: a run may be a damaged copy, or come from an unknown person.

Only regular files are read: a FIFO would wait for a writer for ever, and a link may lead to a file
outside the run. JSON and YAML files may have only a limited size, a limited depth and plain values.
harness/places/reading.py has the same rules, but `analysis` may not import it.
"""

import json
import os
import stat
from math import isfinite
from pathlib import Path
from typing import Any

import yaml
from pyarrow.fs import FileInfo, FileSystem, FileType, LocalFileSystem

LARGEST_JSON = 2**24  # bytes
LARGEST_YAML = 2**18  # bytes
_DEEPEST = 32  # levels of lists and mappings inside each other
_END = "..."  # last line of every config.yaml; a file without this line may be cut


def check_file(files: FileSystem, info: FileInfo) -> None:
    """Refuse a path that is no regular file.

    Args:
        files: the file system of the run.
        info: result of `files.get_file_info` for the path.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: the path is no regular file (for example, a link, a folder or a FIFO).
    """
    is_link = isinstance(files, LocalFileSystem) and Path(info.path).is_symlink()
    if info.type == FileType.NotFound and not is_link:
        raise FileNotFoundError(f"{info.path} must exist, got no file: check the path")
    if is_link or info.type != FileType.File:
        raise ValueError(
            f"{info.path} must be a regular file, got a link, a folder or a FIFO: replace it by "
            "the file itself"
        )


def check_store(folder: Path) -> None:
    """Check that a folder contains only regular files and folders.

    Raises:
        ValueError: a path in the folder is neither a regular file nor a folder (for example, a link
            or a FIFO).
    """
    for found, folders, names in os.walk(folder):
        links = [name for name in folders if Path(found, name).is_symlink()]
        for path in (Path(found, name) for name in [*links, *names]):
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:  # a driver that is working has just removed the file
                continue
            if not stat.S_ISREG(mode):
                raise ValueError(
                    f"{path} must be a regular file, got a link or a FIFO: replace it by the file "
                    "itself"
                )


def read_text(files: FileSystem, path: str, at_most: int = LARGEST_YAML) -> str:
    """Read a text file that has at most `at_most` bytes.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the path is no regular file, or the file is too large or is not UTF-8.
        OSError: the file cannot be read.
    """
    info = files.get_file_info(path)
    check_file(files, info)
    if info.size > at_most:
        raise ValueError(f"{path} must have at most {at_most} bytes, got {info.size}: restore it")
    with files.open_input_file(path) as file:
        try:
            return str(file.read(at_most).decode())
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path} must be UTF-8, got other bytes: restore the file from a copy of the run"
            ) from error


def parse_configuration(text: str, path: str) -> dict[str, Any]:
    """Parse the text of a config.yaml.

    Args:
        text: the content of the file.
        path: path of the file, for errors.

    Raises:
        ValueError: the last line is not "...", so the file may be cut, or the text is no YAML
            mapping of plain values.
    """
    advice = "restore the file from a copy of the run"
    if not text.rstrip().endswith(f"\n{_END}"):
        raise ValueError(
            f"{path} must end with the line {_END}, got a file that may be cut: {advice}, or add "
            "this line if the file is complete"
        )
    try:
        values = yaml.load(text, _PlainLoader)
        _check_plain(values)
        if isinstance(values, dict):
            return values
        raise ValueError("no keys")
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{path} must be YAML of keys and plain values, got an error: "
            f"{' '.join(str(error).split())}: {advice}"
        ) from error


def parse_json(text: str, path: str) -> Any:
    """Parse a JSON text.

    Args:
        text: the content of the file.
        path: path of the file, for errors.

    Raises:
        ValueError: the text is no JSON, is nested too deeply, or has a number that is not finite.
    """
    try:
        value = json.loads(text)
        _check_plain(value)
        return value
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be JSON, got an error: {error}: restore the file") from error


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """A YAML loader that refuses anchors, aliases, tags and deep nesting.

    With aliases, a file of a few hundred bytes can stand for 10^9 values.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise ValueError("anchors, aliases and tags are not allowed")
        if self._depth > _DEEPEST:
            raise ValueError(f"values must be nested at most {_DEEPEST} levels deep")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _check_plain(value: Any) -> None:
    """Raise ValueError if a value is infinite or no JSON value, or is nested too deeply."""
    level = [value]
    for _ in range(_DEEPEST):
        for one in level:
            if isinstance(one, float) and not isfinite(one):
                raise ValueError(f"numbers must be finite, got {one}")
            if not isinstance(one, dict | list | str | int | float | None):
                raise ValueError(f"values must be texts or numbers, got {one}")
        lists = [list(one.values()) if isinstance(one, dict) else one for one in level]
        level = [inner for one in lists if isinstance(one, list) for inner in one]
        if not level:
            return
    raise ValueError(f"values must be nested at most {_DEEPEST} levels deep")
