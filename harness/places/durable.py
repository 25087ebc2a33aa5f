"""Files that are on disk, whole, once a write returns."""

import errno
import os
from pathlib import Path
from typing import BinaryIO

from harness.places.places import Place

# What file systems without hard links answer to the wish for one: FAT, some network mounts.
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def fsync(path: Place) -> None:
    """Force a file, or the entries of a folder, to disk; what lies in object storage is safe."""
    if not isinstance(path, Path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Place, data: bytes, *, exclusive: bool = False) -> None:
    """Write a file that is on disk, whole, once this returns; on an error nothing changes.

    Args:
        path: of the file; a crash may leave ".<name>.<process>.partial" beside it, and on a
            file system without hard links an exclusive file that is not whole.
        data: all of its content.
        exclusive: refuse to replace a file.

    Raises:
        FileExistsError: exclusive, and the file exists.
        OSError: the disk is full, the folder is missing or may not be written, ...
        UserError: object storage cannot be written to.
    """
    if not isinstance(path, Path):
        path.write(data, exclusive=exclusive)
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            _fill(file, data)
        if not exclusive:
            partial.replace(path)
            fsync(path.parent)
            return
        _link_or_create(path, partial, data)
        try:
            fsync(path.parent)
        except OSError:
            path.unlink()  # the caller is told that it failed, and may write it again
            raise
    finally:
        partial.unlink(missing_ok=True)


def _fill(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _link_or_create(path: Path, partial: Path, data: bytes) -> None:
    """Give the partial file its name, or write its content anew where there are no hard links."""
    try:
        path.hardlink_to(partial)  # unlike a rename, fails where the name is taken
        return
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
    with path.open("xb") as file:
        try:
            _fill(file, data)
        except BaseException:
            path.unlink()  # only a crash leaves half a file
            raise


def remove_partial_files(folder: Place) -> None:
    """Remove what crashed writers left in a folder, which may be missing.

    Only for the one process that may write there.

    Args:
        folder: not those below it.
    """
    if not isinstance(folder, Path):
        return  # objects appear whole
    for path in folder.glob(".*.partial"):
        if path.is_file():
            path.unlink()
