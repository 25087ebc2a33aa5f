"""Paths of run directories: a folder on a disk, or a URL of object storage.

A folder is a pathlib.Path. A URL is an ObjectPath (harness/places/objects.py). Both have the same
few methods: `/`, name, exists, glob, read_bytes, replace and others. This module adds operations
that pathlib does not have. Durable writes are in harness/places/durable.py.
"""

import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from harness.errors import UserError

if TYPE_CHECKING:
    from harness.places.objects import ObjectPath

Place: TypeAlias = "Path | ObjectPath"
SCHEMES = ("s3", "gs")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # old buckets may have capitals and underscores
_AT_ONCE = 16  # requests to a server at the same time

A = TypeVar("A")
T = TypeVar("T")


def is_url(text: str) -> bool:
    """Return whether a text has the form of a URL. The URL need not be valid."""
    return "://" in text


def check_url(text: str) -> None:
    """Check that a URL has the form s3://BUCKET/FOLDER or gs://BUCKET/FOLDER.

    Raises:
        UserError: the scheme is not s3 or gs, the URL names no folder in a bucket, or the URL has
            a character that is not allowed.
    """
    scheme, _, rest = text.partition("://")
    bucket, *parts = rest.rstrip("/").split("/")
    if (
        scheme not in SCHEMES
        or not _BUCKET.fullmatch(bucket)
        or not parts
        or {"", ".", ".."} & {*parts}
        or not rest.isprintable()
    ):
        raise UserError(
            "run_dir must be a folder, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER with a BUCKET of "
            f"letters, digits, dots and hyphens, got {text}: correct the URL, or give a local "
            "folder"
        )


def place(text: str) -> Place:
    """Turn the value of the key run_dir, which is a folder or a URL, into an absolute path.

    The path is absolute, so that it stays right if the current folder changes later.

    Raises:
        UserError: the URL is wrong, its bucket cannot be used, or obstore is not installed.
    """
    if not is_url(text):
        return local(text)
    check_url(text)
    if find_spec("obstore") is None:
        raise UserError(
            f"run_dir={text} needs the package obstore, which is not installed: type "
            "python -m pip install --constraint constraints.txt -e '.[cloud]'"
        )
    from harness.places.objects import open_url

    return open_url(text)


def local(text: str, key: str = "run_dir") -> Path:
    """Turn the path of a local folder into an absolute path.

    Args:
        text: the path as typed. ~ and ~USER at its start mean a home folder.
        key: the name of the configuration key, for the error.

    Raises:
        UserError: the path begins with ~USER, and the user does not exist.
    """
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise UserError(
            f"{key} must name an existing user after ~, got {text}: write the folder's full path"
        ) from error


def relative(path: Place, folder: Place) -> str:
    """Return a path relative to `folder`, as text. The folder must contain the path."""
    return str(path).removeprefix(f"{folder}/")


def each(function: Callable[[A], T], items: Sequence[A], where: Place) -> list[T]:
    """Call a function that reads files, once for each item.

    For object storage the calls run in threads, 16 at a time, because they wait for the network.

    Args:
        function: function that reads the files of one item. It must be thread-safe.
        items: arguments of the calls, one item per call.
        where: folder that contains the files.

    Returns:
        The results of the calls, in the order of the items.
    """
    if isinstance(where, Path):
        return [function(item) for item in items]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(function, items))


def put_aside(path: Place) -> None:
    """Rename a broken file to <name>.broken.

    The program no longer reads the file, and a person can still examine it.
    """
    target: Any = path.with_name(f"{path.name}.broken")
    path.replace(target)


def remove_tree(path: Place) -> None:
    """Remove a folder and everything in it."""
    if isinstance(path, Path):
        shutil.rmtree(path)
    else:
        path.remove_tree()
