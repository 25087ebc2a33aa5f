"""Sign files, to distinguish this user's own files from the files of other users.

Ray Tune keeps the state of a search in pickles, and a pickle can run any program when it is read.
So each file of Ray Tune begins with a signature: a code that only a program with this user's key
can compute. The key is in a file that only this user can read. Ray Tune never gets the content of a
file with a wrong signature.
"""

import hmac
import io
import logging
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem  # Ray Tune depends on fsspec
from pyarrow.fs import FSSpecHandler, PyFileSystem

from harness.errors import UserError
from harness.places.durable import write_durably
from harness.places.secret import make_secret, read_secret

logger = logging.getLogger("harness")

REPORTS = "result.json"  # Ray Tune's name for the file with the reports of a trial
_KEY = "supermasks/search_key"
_SIGNATURE_BYTES = 1 + 256  # a line break, and a space or a tabulator for each bit of SHA-256


def is_signed(path: Path) -> bool:
    """Return whether a file of Ray Tune has a signature: each file that may contain a pickle."""
    is_plain = path.suffix == ".csv" or path.name.startswith("events.out.tfevents")
    return not is_plain and path.name != REPORTS


class UnsignedError(UserError):
    """The error for a file without a valid signature: another user wrote or changed the file."""


def key_path() -> Path:
    """Return the path of the file with this user's key, in the user's configuration folder."""
    # The XDG standard treats an empty variable like an unset variable.
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / _KEY


def make_key() -> None:
    """Make the file with this user's key if the file is missing, and check that it can be read.

    Raises:
        UserError: the file cannot be made or read, or other users can read the file.
    """
    try:
        path = key_path()
        make_secret(path)
        read_secret(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home
        raise UserError(
            f"the key of this user's searches cannot be stored ({error}): "
            "set XDG_CONFIG_HOME to a folder that only you can write"
        ) from error


def read_signed(path: Path) -> bytes:
    """Read a file, and check its signature.

    Args:
        path: path of a file that write_signed wrote. The file may now be in another folder, but
            it must have the same name.

    Returns:
        The content, without the signature.

    Raises:
        UnsignedError: the signature is missing or wrong.
    """
    if path.exists() and not path.is_file():  # a pipe would block, and a device may have no end
        raise UnsignedError(f"{path} is no regular file")
    content = path.read_bytes()
    data, signature = content[:-_SIGNATURE_BYTES], content[-_SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(path.name, data)):
        raise UnsignedError(f"{path} has no valid signature of this user")
    return data


def check_signed(folder: Path) -> None:
    """Check the files that Ray Tune may read from a folder and its subfolders.

    Args:
        folder: the folder of Ray Tune's state; it may be missing.

    Raises:
        UnsignedError: a file has no valid signature.
    """
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".json", ".pkl") and is_signed(path):
            try:
                read_signed(path)
            except OSError as error:
                raise UnsignedError(f"{path} cannot be read ({error.strerror})") from error


def write_signed(path: Path, data: bytes) -> None:
    """Write a file. Its last line is a signature of the file's name and content.

    When this function returns, the whole file is on disk.
    """
    write_durably(path, data + _signature(path.name, data))


def _signature(name: str, data: bytes) -> bytes:
    key = read_secret(key_path())
    code = hmac.digest(key, os.fsencode(name) + b"\0" + data, "sha256")
    bits = "".join(f"{byte:08b}" for byte in code)
    return b"\n" + bits.replace("0", " ").replace("1", "\t").encode()


class _Output:
    """A file object that writes a signed file.

    It keeps the written data in memory. `close` signs the data, and writes the file to disk. If
    `close` is not called, no file is written.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._buffer = path, io.BytesIO()

    @property
    def closed(self) -> bool:
        return self._buffer.closed

    def write(self, data: Any) -> int:
        return self._buffer.write(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        if self.closed:
            return
        try:
            write_signed(self._path, self._buffer.getvalue())
        except OSError as error:
            # When Arrow copies files, it ignores an error of this method. So the error is also
            # logged.
            logger.error("%s not saved: %s", self._path, error.strerror)
            raise
        self._buffer.close()


class _SignedFiles(FSSpecHandler):  # type: ignore[misc]  # pyarrow has no annotations
    """The local file system. It signs each file that it writes, and checks each file that it reads.

    Files that have no signature (see is_signed) are written and read as they are. Ray Tune pickles
    this object together with the state of the search. So the object must not contain the key.
    """

    def __init__(self) -> None:
        super().__init__(LocalFileSystem())

    def __reduce__(self) -> tuple[Any, ...]:
        return _SignedFiles, ()

    def get_type_name(self) -> str:
        return "signed"

    def open_input_stream(self, path: str) -> pa.NativeFile:
        if not is_signed(Path(path)):
            return super().open_input_stream(path)
        return pa.BufferReader(read_signed(Path(path)))

    def open_input_file(self, path: str) -> pa.NativeFile:
        return self.open_input_stream(path)

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        if not is_signed(Path(path)):
            return super().open_output_stream(path, metadata)
        return pa.PythonFile(_Output(Path(path)), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        raise io.UnsupportedOperation("a signed file cannot be appended to: write the whole file")


def signed_files() -> PyFileSystem:
    """Return a file system for Ray Tune. It signs written files, and checks files that are read."""
    return PyFileSystem(_SignedFiles())
