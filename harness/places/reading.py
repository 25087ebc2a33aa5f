"""Read the files of a run safely: a run may be a damaged copy, or come from an unknown person.

Only regular files are read. A FIFO, a device or a link is refused before a byte is read: a FIFO
would wait for a writer for ever, a device may have no end, and a link may lead to a file outside
the run. JSON and YAML files may have only a limited size, a limited depth and plain values, so the
time to read them is limited too. The package `analysis` may not import this module, and has a
module of its own, analysis/reading.py.
"""

import json
import os
import stat
from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from harness.errors import UserError
from harness.places.places import Place

LARGEST_JSON = 2**24  # bytes; each start of a run adds about 1 kB to provenance.json
LARGEST_YAML = 2**18  # bytes; the parser takes about 2 s for this size
_DEEPEST = 32  # levels of lists and mappings inside each other

# YAML's mark for the end of a document. The last line of every config.yaml is this mark. Without
# the mark, a file that was cut at the end of a line would look like a complete configuration.
END = "...\n"

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}


def open_regular(
    path: Path, *, create: bool = False, follow: bool = False, buffering: int = -1
) -> Any:
    """Open a regular file, in binary mode.

    Args:
        path: path of the file.
        create: whether to create a missing file, and to open the file for writing too.
        follow: whether the path may be a link to a regular file.
        buffering: size of the buffer in bytes, as for `open`; 0: no buffer; -1: the default size.

    Raises:
        FileNotFoundError: the file is missing.
        UserError: the path is a link, a folder, a FIFO, a socket or a device.
        OSError: the file cannot be opened.
    """
    flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    # With O_NONBLOCK, opening a FIFO does not wait for another process.
    flags |= os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileNotFoundError:
        raise
    except OSError:
        check_regular(path, os.lstat(path).st_mode)
        raise
    try:
        check_regular(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "r+b" if create else "rb", buffering)
    except BaseException:
        os.close(descriptor)
        raise


def check_regular(path: Path, mode: int) -> None:
    """Refuse a path that is no regular file.

    Args:
        path: the path, for the error.
        mode: st_mode of the path.

    Raises:
        UserError: the path is a link, a folder, a FIFO, a socket or a device.
    """
    if not stat.S_ISREG(mode):
        raise _not_a(path, "regular file", _KINDS.get(stat.S_IFMT(mode), "a device"))


def check_folders(folders: Iterable[Place]) -> None:
    """Refuse a path that is no folder, because a link could lead a writer out of the run directory.

    Args:
        folders: paths of folders, which may be missing.

    Raises:
        UserError: a path is a link, a file, a FIFO, a socket or a device.
    """
    for folder in folders:
        if not isinstance(folder, Path) or not os.path.lexists(folder):
            continue
        mode = folder.lstat().st_mode
        if not stat.S_ISDIR(mode):
            raise _not_a(folder, "folder", _KINDS.get(stat.S_IFMT(mode), "a file or a device"))


def _not_a(path: Path, wanted: str, kind: str) -> UserError:
    """Make the error for a path of another kind than the program reads or writes."""
    return UserError(
        f"{path} must be a {wanted}, got {kind}: replace it by the {wanted.split()[-1]} itself, or "
        f"remove the {kind.removeprefix('a ')}"
    )


def read_bytes(path: Place, at_most: int | None = None) -> bytes:
    """Read a whole file.

    Args:
        path: path of the file.
        at_most: the largest allowed size in bytes; None: any size.

    Raises:
        FileNotFoundError: the file is missing.
        UserError: the path is no regular file, or the file is too large.
        OSError: the file cannot be read.
    """
    if isinstance(path, Path):
        with open_regular(path) as file:
            data: bytes = file.read() if at_most is None else file.read(at_most + 1)
    else:
        data = path.read_bytes()
    if at_most is not None and len(data) > at_most:
        raise UserError(
            f"{path} must have at most {at_most} bytes, got more: restore the file, or choose "
            "another run_dir"
        )
    return data


def read_json(path: Place) -> Any:
    """Read a JSON file.

    Returns:
        Dictionaries, lists, texts, finite numbers, booleans and None.

    Raises:
        FileNotFoundError: the file is missing.
        UserError: the path is no regular file, or the file is too large.
        ValueError: the content is not JSON, is nested too deeply, or has a number that is not
            finite.
        OSError: the file cannot be read.
    """
    return parse_json(read_bytes(path, LARGEST_JSON))


def parse_json(data: bytes) -> Any:
    """Parse the content of a JSON file. See read_json for the result and for the ValueError."""
    try:
        value = json.loads(data)
    except RecursionError as error:
        raise ValueError(_too_deep()) from error
    _check_plain(value)
    return value


def read_configuration(path: Place) -> Any:
    """Read a config.yaml: one YAML document, and END ("...") as its last line.

    Returns:
        Dictionaries, lists, texts, finite numbers, booleans and None.

    Raises:
        ValueError: the last line is not END, so the file may be cut, or the content is no YAML
            document of plain values.
        FileNotFoundError, UserError, OSError: see read_json.
    """
    text = read_bytes(path, LARGEST_YAML).decode()
    if not text.rstrip().endswith(f"\n{END.rstrip()}"):
        raise ValueError(
            f"the last line must be {END.rstrip()}, got another line, so the file may be cut (if "
            f"the file is complete, add the line {END.rstrip()})"
        )
    return parse_yaml(text)


def parse_yaml(text: str) -> Any:
    """Parse one YAML document of plain values, without anchors, aliases and tags.

    Returns:
        Dictionaries, lists, texts, finite numbers, booleans and None.

    Raises:
        ValueError: the text is no YAML document of plain values, a key occurs twice, or the values
            are nested too deeply.
    """
    try:
        value = yaml.load(text, _PlainLoader)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{error.problem}{line}") from error
    except yaml.YAMLError as error:
        raise ValueError(str(error).partition("\n")[0]) from error
    except OverflowError as error:
        raise ValueError("a number is too large") from error
    _check_plain(value)
    return value


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """A YAML loader that refuses anchors, aliases, tags, repeated keys and deep nesting.

    With aliases, a file of a few hundred bytes can stand for 10^9 values. The loader of libyaml is
    faster, but crashes if values are nested deeply.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if self._depth > _DEEPEST:
            raise yaml.composer.ComposerError(None, None, _too_deep(), event.start_mark)
        if getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise yaml.composer.ComposerError(
                None, None, "anchors, aliases and tags are not allowed", event.start_mark
            )
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [str(key.value) for key, _ in node.value]
        if len(set(names)) < len(names):
            raise yaml.constructor.ConstructorError(
                None, None, "a key occurs twice", node.start_mark
            )
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def _check_plain(value: Any) -> None:
    """Raise ValueError if a value is no JSON value, is not finite, or is nested too deeply."""
    level = [value]
    for _ in range(_DEEPEST):
        for one in level:
            if isinstance(one, float) and not isfinite(one):
                raise ValueError(f"numbers must be finite, got {one}")
            if not isinstance(one, dict | list | str | int | float | None):
                raise ValueError(f"values must be texts or numbers, got {one}")
            if isinstance(one, dict) and not all(isinstance(key, str) for key in one):
                raise ValueError("keys must be texts, got another value")
        lists = [list(one.values()) if isinstance(one, dict) else one for one in level]
        level = [inner for one in lists if isinstance(one, list) for inner in one]
        if not level:
            return
    raise ValueError(_too_deep())


def _too_deep() -> str:
    return f"values must be nested at most {_DEEPEST} levels deep, got more"
