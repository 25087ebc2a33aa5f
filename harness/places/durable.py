"""Durable writes: when a write returns, the whole file is on disk."""

import errno
import os
import re
from pathlib import Path
from typing import BinaryIO

from harness.places.places import Place

# Names of unfinished files. write_durably and the report use `.<name>.<process>.partial`. zarr uses
# `<name>.<32 hex digits>.partial`. Files with other names are never removed.
_PARTIAL = re.compile(r"\..+\.\d+\.partial|.+\.[0-9a-f]{32}\.partial")

# Errors of file systems that have no hard links, such as FAT and some network mounts.
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def fsync(path: Place) -> None:
    """Flush a file, or the entries of a folder, to disk.

    For object storage, this function does nothing: an object is durable when the request that
    writes it has returned.
    """
    if not isinstance(path, Path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Place) -> None:
    """Flush a folder and everything in it to disk; do nothing in object storage."""
    if not isinstance(folder, Path):
        return
    for path in [*folder.rglob("*"), folder]:
        fsync(path)


def write_durably(path: Place, data: bytes, *, exclusive: bool = False, mode: int = 0o666) -> None:
    """Write a file durably: when this function returns, the whole file is on disk.

    If the write fails, an old file of this name is unchanged. A crash may leave a file
    ".<name>.<process number>.partial" in the same folder. If `exclusive` is true and the file
    system has no hard links, a crash may also leave an incomplete file of this name.

    Args:
        path: path of the file.
        data: the whole content of the file.
        exclusive: whether to refuse to replace an existing file.
        mode: permission bits of a new local file. The umask removes some of them.

    Raises:
        FileExistsError: exclusive is true and the file exists.
        OSError: for example, the disk is full, or the folder is missing or read-only.
        UserError: the object storage refuses the write.
    """
    if not isinstance(path, Path):
        path.write(data, exclusive=exclusive)
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        # A crashed process with the same process number may have left a file of this name. A
        # symbolic link of this name would redirect the write to another file.
        partial.unlink(missing_ok=True)
        with _created(partial, os.O_EXCL, mode) as file:
            _fill(file, data)
        if not exclusive:
            partial.replace(path)
            fsync(path.parent)
            return
        _link_or_create(path, partial, data, mode)
        try:
            fsync(path.parent)
        except OSError:
            path.unlink()  # so that a second try can create a file of this name
            raise
    finally:
        partial.unlink(missing_ok=True)


def _created(path: Path, flag: int, mode: int) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | flag, mode), "wb")


def _fill(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _link_or_create(path: Path, partial: Path, data: bytes, mode: int) -> None:
    """Give the partial file its final name by a hard link.

    If the file system has no hard links, write a second file with the final name.
    """
    try:
        path.hardlink_to(partial)  # unlike a rename, this fails if the name is taken
        return
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
    with _created(path, os.O_EXCL, mode) as file:
        try:
            _fill(file, data)
        except BaseException:
            path.unlink()  # only a crash may leave an incomplete file
            raise


def remove_partial_files(folder: Place, *, below: bool = False) -> None:
    """Remove the partial files that crashed writers left in a folder.

    Call this function only in the process that is allowed to write to the folder. Files with other
    names stay. Symbolic links to folders are not followed.

    Args:
        folder: the folder, which may be missing.
        below: whether the folders inside this folder are searched too.
    """
    if not isinstance(folder, Path) or folder.is_symlink():
        return  # object storage never shows a partial object
    for found, folders, names in os.walk(folder):  # does not follow links
        if not below:
            folders.clear()
        for name in names:
            if _PARTIAL.fullmatch(name):
                Path(found, name).unlink()
