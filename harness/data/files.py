"""The files of a data set: the folders to search, the cache of downloads, and checked bytes."""

import contextlib
import gzip
import hashlib
import logging
import os
import stat
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError, one_line

logger = logging.getLogger(__name__)

Known = Mapping[str, tuple[str, int]]  # name of a published file -> (sha256, size in bytes)


@dataclass(frozen=True)
class DataFiles:
    """The places of a data set's files, which every loader gets.

    Attributes:
        path: the file or folder of `data=PATH`; None if `data` is a name.
        data_dir: the user's folder, which is searched first; None: there is no such folder.
        download: whether to download missing files into the cache folder.
    """

    path: Path | None = None
    data_dir: Path | None = None
    download: bool = False


def cache_folder(name: str) -> Path:
    """Return the folder for the downloaded files of a data set."""
    # The XDG standard treats an empty variable like an unset variable.
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "supermasks" / name


def own_folders(name: str, data_dir: Path | None) -> list[Path]:
    """List the folders of the user in which a data set is searched: data_dir and SUPERMASKS_DATA.

    Args:
        name: name of the data set. It is also the name of a folder inside SUPERMASKS_DATA.
        data_dir: see DataFiles.
    """
    found = [] if data_dir is None else [data_dir]
    if os.environ.get("SUPERMASKS_DATA"):
        found.append(Path(os.environ["SUPERMASKS_DATA"]).expanduser() / name)
    return found


def find(file: str, folders: Sequence[Path], sha256: str, num_bytes: int) -> bytes | None:
    """Read the first copy of a file, plain or .gz, and check it. Return None if no copy exists."""
    for path in (folder / f"{file}{suffix}" for folder in folders for suffix in ("", ".gz")):
        try:
            content = _read(path, num_bytes)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(
                f"cannot read {path} ({one_line(error)}): make it readable, or delete it and"
                " set download=true"
            ) from error
        got = hashlib.sha256(content).hexdigest()
        if got == sha256:
            return content
        if len(content) > num_bytes:
            got = f"more than {num_bytes} bytes"
        raise UserError(
            f"{path} must unpack to sha256 {sha256}, got {got}: the file is damaged or belongs to"
            " another data set; delete it and set download=true, or replace it by the published"
            " file"
        )
    return None


def _read(path: Path, num_bytes: int) -> bytes:
    """Read and unpack a file that should have `num_bytes` bytes. Read at most one byte more.

    Raises:
        OSError, EOFError, zlib.error: the file cannot be read or unpacked.
    """
    # Opening a FIFO would wait for a writer, and a device such as /dev/zero never ends.
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("not a regular file")
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        return stream.read(num_bytes + 1)


def find_all(known: Known, folders: Sequence[Path]) -> dict[str, bytes]:
    """Read and check those files of a data set that exist in some folder; see `find`.

    Args:
        known: the files of the data set.
        folders: the folders to search, in order.

    Returns:
        Name of each file that exists -> its content.
    """
    found = {file: find(file, folders, *checks) for file, checks in known.items()}
    return {file: content for file, content in found.items() if content is not None}


def keep_downloads(
    name: str, downloaded: Iterable[tuple[str, bytes]], known: Known, contents: dict[str, bytes]
) -> None:
    """Check downloaded files, store them in the cache, and add them to `contents`.

    Args:
        name: name of the data set.
        downloaded: pairs of file name and content.
        known: the files of the data set.
        contents: name of each file that was found or downloaded -> its content.

    Raises:
        ValueError: a file has another checksum. Earlier files are kept.
    """
    for file, content in downloaded:
        _verify(file, content, known[file][0])
        store(cache_folder(name) / file, content)
        contents[file] = content


def _verify(file: str, content: bytes, sha256: str) -> None:
    """Check the checksum of a downloaded file.

    Raises:
        ValueError: the content has another checksum.
    """
    got = hashlib.sha256(content).hexdigest()
    if got != sha256:
        raise ValueError(f"{file} must have sha256 {sha256}, got {got}")


def store(path: Path, content: bytes) -> None:
    """Write a verified file to the cache. If this fails, log a warning, and leave no file."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        logger.warning("cannot cache %s (%s); continuing without it", path, one_line(error))
        with contextlib.suppress(OSError):
            temporary.unlink()
