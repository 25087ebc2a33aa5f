"""Where a run lies: a folder on a disk, or a URL of object storage.

Either is a path with the same few methods (`/`, name, exists, glob, read_bytes, replace, ...):
pathlib's own, or harness/places/objects.py. Here is what pathlib has no word for. How a file gets
to disk whole, harness/tables/schemas.py says.
"""

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from harness.errors import UserError

if TYPE_CHECKING:
    from harness.places.objects import ObjectPath

Place: TypeAlias = "Path | ObjectPath"
SCHEMES = ("s3", "gs")
_AT_ONCE = 16  # requests that wait for a server together

A = TypeVar("A")
T = TypeVar("T")


def is_url(text: str) -> bool:
    """Whether this names a place in object storage, well or badly."""
    return "://" in text


def check_url(text: str) -> None:
    """Check that a URL may name a run directory.

    Raises:
        UserError: another scheme, or no folder in a bucket.
    """
    scheme, _, rest = text.partition("://")
    bucket, *parts = rest.rstrip("/").split("/")
    if scheme not in SCHEMES or not bucket or not parts or {"", ".", ".."} & {*parts}:
        raise UserError(
            f"run_dir must be a folder, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER, got {text}"
        )


def place(text: str) -> Place:
    """A run directory, from what was typed: absolute, whatever the current folder is later.

    Raises:
        UserError: a URL whose bucket cannot be used, or for which a package is missing.
    """
    if not is_url(text):
        return local(text)
    check_url(text)
    if find_spec("obstore") is None:
        raise UserError(
            f"run_dir={text} needs the package obstore, got none: install it "
            "(constraints.txt has the tested version)"
        )
    from harness.places.objects import open_url

    return open_url(text)


def local(text: str) -> Path:
    """A folder of this machine, from what was typed: absolute.

    Raises:
        UserError: ~ with a user that there is not.
    """
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise UserError(f"run_dir must lie with a user that there is, got {text}") from error


def relative(path: Place, folder: Place) -> str:
    """The way to a place from a folder above it."""
    return str(path).removeprefix(f"{folder}/")


def each(function: Callable[[A], T], items: Sequence[A], where: Place) -> list[T]:
    """Call a function that reads files.

    Args:
        function: called many times at once over a network, each in a thread.
        items: what it is called with.
        where: the files lie.

    Returns:
        what it returned, in order.
    """
    if isinstance(where, Path):
        return [function(item) for item in items]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(function, items))


def read_array(path: Place) -> np.ndarray:
    """The bytes of a file, as an array that may be changed.

    Raises:
        FileNotFoundError: there is none.
    """
    if isinstance(path, Path):
        return np.fromfile(path, np.uint8)
    return np.frombuffer(path.read_bytes(), np.uint8).copy()


def read_into(path: Place, starts: Sequence[int], rows: np.ndarray) -> None:
    """Fill rows from places in a file; what lies past its end is left as it is.

    Args:
        path: of the file.
        starts: of each row, in bytes.
        rows: of bytes.

    Raises:
        FileNotFoundError: there is no file.
    """
    if not isinstance(path, Path):
        for row, part in zip(rows, path.read_parts(starts, rows.shape[1]), strict=True):
            row[: len(part)] = part
        return
    with path.open("rb", buffering=0) as file:
        for row, start in zip(rows, starts, strict=True):
            file.seek(start)
            file.readinto(row.data)


def put_aside(path: Place) -> None:
    """Keep a broken file for whoever looks into it, where no table finds it."""
    target: Any = path.with_name(f"{path.name}.broken")
    path.replace(target)


def remove_tree(path: Place) -> None:
    """Remove a folder and everything in it."""
    if isinstance(path, Path):
        shutil.rmtree(path)
    else:
        path.remove_tree()
