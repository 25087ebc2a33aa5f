"""Paths in object storage, with the few file operations that a run needs.

A put is the request that writes an object. When the put has returned, every read gives the whole
new object. So nothing needs to be flushed, and a crash leaves no partial object. Object storage has
no folders and no renames.

Environment variables give the server and the credentials: AWS_ENDPOINT_URL, AWS_REGION,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or the variables that Google's libraries read. Without
these variables, a cloud machine uses the credentials of its role.

This module is imported only if run_dir is a URL, so a run on a disk does not need the package
obstore. The harness uses obstore because the file systems of Arrow have no conditional put: a put
that fails if the object has changed.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import GCSStore, S3Store
from pyarrow.fs import resolve_s3_region

from harness.errors import UserError
from harness.places.stderr import stderr_held_back


@dataclass(frozen=True)
class Patience:
    """Time limits and retries of requests to a server.

    Attributes:
        connect: seconds that it may take to connect to the server.
        request: seconds that one try of a request may take.
        again: no retry begins later than this many seconds after the start of the first try.
        pause: longest pause before a retry, in seconds.
        tries: largest number of retries after the first try.
    """

    connect: int
    request: int
    again: int
    pause: int
    tries: int


_AT_WORK = Patience(connect=5, request=30, again=40, pause=5, tries=30)
_AT_FIRST = Patience(connect=3, request=5, again=5, pause=1, tries=1)
LONGEST_WRITE = _AT_WORK.again + _AT_WORK.pause + _AT_WORK.request
"""A write that began this many seconds ago, or earlier, can no longer reach the server."""

_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_CHECK = {
    "s3": "check the bucket, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and "
    "AWS_ENDPOINT_URL",
    "gs": "check the bucket and GOOGLE_APPLICATION_CREDENTIALS",
}
_GO_ON = "fix the cause and type the same command again; committed results are kept"
# A cloud machine gets its credentials from this address. obstore uses the address if no environment
# variable has credentials.
_OF_CLOUD_MACHINES = "169.254.169.254"


class Bucket:
    """A bucket, and the client with which this process uses the bucket.

    Args:
        scheme: "s3" or "gs".
        name: the bucket's name.

    Attributes:
        before_write: function that is called before every write. The function raises an error if
            this process may no longer write.
    """

    def __init__(self, scheme: str, name: str) -> None:
        self.scheme, self.name = scheme, name
        self._known = _region(name) if scheme == "s3" else {}
        self.before_write: Callable[[], None] = lambda: None
        self.client = self.store("", _AT_WORK)

    def store(self, prefix: str, patience: Patience) -> S3Store | GCSStore:
        """Make a client for the objects below a prefix, with given time limits and retries."""
        kind: Any = S3Store if self.scheme == "s3" else GCSStore
        made: S3Store | GCSStore = kind(
            self.name,
            prefix=prefix or None,
            client_options={
                "allow_http": True,  # the endpoint may be an http:// URL
                "connect_timeout": timedelta(seconds=patience.connect),
                "timeout": timedelta(seconds=patience.request),
            },
            retry_config={
                "max_retries": patience.tries,
                "backoff": {"max_backoff": timedelta(seconds=patience.pause)},
                "retry_timeout": timedelta(seconds=patience.again),
            },
            **self._known,
        )
        return made


def _region(bucket: str) -> dict[str, str]:
    """Ask AWS for a bucket's region, unless the environment names a region or an endpoint.

    Returns:
        {"region": name}; {} if the environment names a region or an endpoint, or if AWS does not
        answer.
    """
    if any(os.environ.get(name) for name in (*_ENDPOINTS, *_REGIONS)):
        return {}
    try:
        return {"region": resolve_s3_region(bucket)}
    except OSError:  # no such bucket, or no network: the first request will report that
        return {}


def open_url(url: str) -> "ObjectPath":
    """Open a path in a bucket, and check that the bucket answers.

    Args:
        url: s3://bucket/key or gs://bucket/key.

    Raises:
        UserError: the bucket does not exist, refuses access or does not answer within a few
            seconds, or the endpoint in the environment is no http URL.
    """
    scheme, _, rest = url.partition("://")
    name, _, key = rest.strip("/").partition("/")
    for variable in _ENDPOINTS:
        given = os.environ.get(variable, "")
        if scheme == "s3" and given and not re.match(r"https?://[^/]", given):
            raise UserError(
                f"{variable} must begin with http:// or https://, got {given!r}: "
                f"try {variable}=https://HOST"
            )
    with _explained(f"{scheme}://{name}", _CHECK[scheme]), stderr_held_back():
        bucket = Bucket(scheme, name)
        obstore.list_with_delimiter(bucket.store(key, _AT_FIRST))
    return ObjectPath(bucket, key)


@contextmanager
def _explained(url: str, advice: str) -> Iterator[None]:
    """Turn an error of the server or of the network into a UserError."""
    try:
        yield
    except BaseException as error:
        # If an environment variable has a value that cannot be part of a request, obstore raises a
        # PanicException. This class is no Exception and cannot be imported, so compare its name.
        if not isinstance(error, BaseError) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{url} cannot be used: {_reason(str(error))}: {advice}") from error


def _reason(text: str) -> str:
    """Extract the reason from an obstore error of many lines."""
    if _OF_CLOUD_MACHINES in text:
        return "no credentials in the environment"
    if code := re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", text, re.DOTALL):
        return f"{code[1]}, {code[2].rstrip('.')}"
    line = " ".join(text.partition("\n\nDebug source")[0].split())
    if request := re.search(r"Error performing (\w+) ([^ ?]+)\S* in .*? - (.*)", line):
        return f"{request[1]} {request[2]}: {request[3].rstrip(': ')}"
    return line


@dataclass(frozen=True)
class ObjectPath:
    """A path in a bucket. Methods with the same names as in pathlib.Path do the same.

    Attributes:
        bucket: the bucket.
        key: the key of an object, or the prefix of all keys in a folder.
    """

    bucket: Bucket
    key: str

    def __str__(self) -> str:
        return f"{self.bucket.scheme}://{self.bucket.name}/{self.key}"

    def __truediv__(self, name: str) -> "ObjectPath":
        return ObjectPath(self.bucket, str(PurePosixPath(self.key, name)))

    @property
    def name(self) -> str:
        """The last part of the key."""
        return PurePosixPath(self.key).name

    @property
    def parent(self) -> "ObjectPath":
        """The folder that contains this path."""
        return self.parents[0]

    @property
    def parents(self) -> Sequence["ObjectPath"]:
        """All folders that contain this path, the innermost first."""
        above = (str(path) for path in PurePosixPath(self.key).parents)
        return [ObjectPath(self.bucket, "" if key == "." else key) for key in above]

    def with_name(self, name: str) -> "ObjectPath":
        """Return the path of another name in the same folder."""
        return self.parent / name

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: object storage has no folders, only prefixes of keys."""

    def is_file(self) -> bool:
        """Return whether an object with this key exists."""
        try:
            with self._explained():
                obstore.head(self.bucket.client, self.key)
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Return whether any object exists below this path."""
        with self._explained():
            found = obstore.list_with_delimiter(self.bucket.client, self.key)
        return bool(found["objects"] or found["common_prefixes"])

    def exists(self) -> bool:
        """Return whether an object has this key, or any object exists below this path."""
        return self.is_file() or self.is_dir()

    def glob(self, pattern: str) -> list["ObjectPath"]:
        """List the objects and folders directly in this folder whose names match a pattern."""
        with self._explained():
            found = obstore.list_with_delimiter(self.bucket.client, self.key)
        keys = [*found["common_prefixes"], *(one["path"] for one in found["objects"])]
        paths = [ObjectPath(self.bucket, key) for key in keys]
        return [path for path in paths if fnmatchcase(path.name, pattern)]

    def read_bytes(self) -> bytes:
        """Read the whole object.

        Raises:
            FileNotFoundError: the object does not exist.
        """
        return self.read_tagged()[0]

    def read_text(self) -> str:
        """Read the whole object as UTF-8 text."""
        return self.read_bytes().decode()

    def read_tagged(self) -> tuple[bytes, dict[str, str]]:
        """Read the whole object and the identifier of its version.

        Returns:
            Two values: the content, and the version as `_version` returns it.

        Raises:
            FileNotFoundError: the object does not exist.
        """
        with self._explained():
            got = obstore.get(self.bucket.client, self.key)
            return bytes(got.bytes()), _version(got.meta)

    def read_parts(self, starts: Sequence[int], length: int) -> list[np.ndarray]:
        """Read parts of the object.

        Args:
            starts: offset of the first byte of each part.
            length: bytes per part.

        Returns:
            uint8 arrays, one per part. If the object ends before the end of a part, the array of
            this part is shorter or empty.

        Raises:
            FileNotFoundError: the object does not exist.
        """
        with self._explained():
            size = obstore.head(self.bucket.client, self.key)["size"]
            ends = [min(start + length, size) for start in starts]
            there = [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]
            got = obstore.get_ranges(
                self.bucket.client,
                self.key,
                starts=[start for start, _ in there],
                ends=[end for _, end in there],
            )
        parts = iter(got)
        return [
            np.frombuffer(bytes(next(parts)) if start < size else b"", np.uint8) for start in starts
        ]

    def write(self, data: bytes, *, exclusive: bool = False) -> None:
        """Write the whole object.

        If this method raises an error, the old object is unchanged, with one exception: the server
        may have written the new object, although its answer was lost.

        Args:
            data: the whole content of the object.
            exclusive: whether to refuse to replace an existing object.

        Raises:
            FileExistsError: exclusive is true, and an object with other content exists.
            UserError: the server refuses the write, or this process may no longer write.
        """
        self.bucket.before_write()
        try:
            with self._explained():
                self._put(data, "create" if exclusive else "overwrite")
        except FileExistsError:
            # obstore repeats a put whose answer was lost. The second try then finds the object
            # of the first try, so equal content means success.
            if self.read_bytes() != data:
                raise
        except FileNotFoundError as error:
            raise UserError(
                f"{self} cannot be used: the bucket no longer exists: {_GO_ON}"
            ) from error

    def write_over(self, data: bytes, version: dict[str, str] | None) -> dict[str, str] | None:
        """Replace one version of the object.

        Args:
            data: the whole new content.
            version: the version to replace; None if no object exists yet.

        Returns:
            The new version; None if the object no longer has the version to replace. If the
            server's answer is lost, obstore repeats the request, and the second request fails
            because the first has succeeded. Then the result is None, although the object has been
            replaced.
        """
        with self._explained():
            try:
                return self._put(data, "create" if version is None else version)
            except (FileExistsError, FileNotFoundError, PreconditionError):
                return None

    def _put(self, data: bytes, mode: Any) -> dict[str, str]:
        try:
            result = obstore.put(self.bucket.client, self.key, data, mode=mode, use_multipart=False)
        except AlreadyExistsError as error:
            raise FileExistsError(f"{self} exists") from error
        return _version(result)

    def replace(self, target: "ObjectPath") -> None:
        """Move the object to another path: copy it, then remove the original."""
        self.bucket.before_write()
        with self._explained():
            obstore.rename(self.bucket.client, self.key, target.key)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the object."""
        self.bucket.before_write()
        try:
            with self._explained():
                obstore.delete(self.bucket.client, self.key)
        except FileNotFoundError:  # only some servers report a missing object
            if not missing_ok:
                raise

    def remove_tree(self) -> None:
        """Remove every object below this path."""
        with self._explained():
            for some in obstore.list(self.bucket.client, self.key):
                self.bucket.before_write()
                obstore.delete(self.bucket.client, [one["path"] for one in some])

    def upload(self, folder: Path, *, last: str) -> None:
        """Upload the files of a local folder to this path.

        Args:
            folder: the local folder.
            last: path of the file to upload last, relative to the folder. If this file exists in
                the bucket, the upload is complete.
        """
        files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        for name in sorted(files, key=lambda name: str(name) == last):
            (self / name.as_posix()).write((folder / name).read_bytes())

    def store(self) -> S3Store | GCSStore:
        """Make a client for the objects below this path, for use by zarr."""
        return self.bucket.store(self.key, _AT_WORK)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with _explained(str(self), _GO_ON):
            yield


def _version(of: Any) -> dict[str, str]:
    """Extract the identifier of an object's version from an answer of the server.

    A later put with this identifier replaces only this version of the object.

    Returns:
        A mapping from name to value. The names are "e_tag" and "version", if the server gives them.
        S3 compares e_tag, and Google compares version.
    """
    return {name: of[name] for name in ("e_tag", "version") if of.get(name)}
