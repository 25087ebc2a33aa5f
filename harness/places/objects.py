"""Paths in a bucket: the few things that a run does with files, done with objects.

An object appears whole and is there for all who read once a put has returned, so nothing is
flushed and nothing half written is left behind. There are no folders and no renames. Which
server, and who asks, the environment says: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, or what Google's libraries read; on a cloud machine its own role.

Imported where a URL is given, so that runs on a disk do without the package obstore.
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


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server.

    Attributes:
        connect: seconds until it is there.
        request: seconds of one request.
        again: seconds after a request began in which it may be tried once more.
        pause: seconds, at most, before it is.
        tries: after the first.
    """

    connect: int
    request: int
    again: int
    pause: int
    tries: int


_AT_WORK = Patience(connect=5, request=30, again=40, pause=5, tries=30)
_AT_FIRST = Patience(connect=3, request=5, again=5, pause=1, tries=1)
LONGEST_WRITE = _AT_WORK.again + _AT_WORK.pause + _AT_WORK.request
"""Seconds after which a write that was begun will no longer arrive."""

_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_CHECK = {
    "s3": "check the bucket, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and "
    "AWS_ENDPOINT_URL",
    "gs": "check the bucket and GOOGLE_APPLICATION_CREDENTIALS",
}
_GO_ON = "mend that and type the same command again; what is committed is kept"
_OF_CLOUD_MACHINES = "169.254.169.254"  # asked for credentials where the environment has none


class Bucket:
    """A bucket, as one process sees it.

    Args:
        scheme: s3 or gs.
        name: of the bucket.

    Attributes:
        before_write: called before every write; raises where this process may no longer.
    """

    def __init__(self, scheme: str, name: str) -> None:
        self.scheme, self.name = scheme, name
        self._known = _region(name) if scheme == "s3" else {}
        self.before_write: Callable[[], None] = lambda: None
        self.client = self.store("", _AT_WORK)

    def store(self, prefix: str, patience: Patience) -> S3Store | GCSStore:
        """A client for what lies below a prefix."""
        kind: Any = S3Store if self.scheme == "s3" else GCSStore
        made: S3Store | GCSStore = kind(
            self.name,
            prefix=prefix or None,
            client_options={
                "allow_http": True,  # where the endpoint begins with it
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
    """The region of a bucket of AWS, where the environment does not say it: Arrow asks."""
    if any(os.environ.get(name) for name in (*_ENDPOINTS, *_REGIONS)):
        return {}
    try:
        return {"region": resolve_s3_region(bucket)}
    except OSError:  # no such bucket, or no way to AWS: who uses the bucket will be told
        return {}


def open_url(url: str) -> "ObjectPath":
    """A path in a bucket that answers.

    Args:
        url: s3://bucket/key or gs://bucket/key.

    Raises:
        UserError: the bucket is missing, does not answer within seconds or lets nobody in.
    """
    scheme, _, rest = url.partition("://")
    name, _, key = rest.strip("/").partition("/")
    for variable in _ENDPOINTS:
        given = os.environ.get(variable, "")
        if scheme == "s3" and given and not re.match(r"https?://[^/]", given):
            raise UserError(f"{variable} must begin with http:// or https://, got {given!r}")
    with _explained(f"{scheme}://{name}", _CHECK[scheme]):
        bucket = Bucket(scheme, name)
        obstore.list_with_delimiter(bucket.store(key, _AT_FIRST))
    return ObjectPath(bucket, key)


@contextmanager
def _explained(url: str, advice: str) -> Iterator[None]:
    """Turn what a server or the way to it refuses into a line for the user."""
    try:
        yield
    except BaseError as error:
        raise UserError(f"{url} cannot be used: {_reason(str(error))}: {advice}") from error


def _reason(text: str) -> str:
    """The one thing to know of obstore's many lines."""
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
    """A place in a bucket; what its methods share with those of Path, they share in meaning.

    Attributes:
        bucket: where.
        key: of an object, or of a folder: what the keys below it begin with.
    """

    bucket: Bucket
    key: str

    def __str__(self) -> str:
        return f"{self.bucket.scheme}://{self.bucket.name}/{self.key}"

    def __truediv__(self, name: str) -> "ObjectPath":
        return ObjectPath(self.bucket, str(PurePosixPath(self.key, name)))

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self.key).name

    @property
    def parent(self) -> "ObjectPath":
        """The folder."""
        return self.parents[0]

    @property
    def parents(self) -> Sequence["ObjectPath"]:
        """The folder, and those above it."""
        above = (str(path) for path in PurePosixPath(self.key).parents)
        return [ObjectPath(self.bucket, "" if key == "." else key) for key in above]

    def with_name(self, name: str) -> "ObjectPath":
        """A neighbour."""
        return self.parent / name

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: folders are parts of names."""

    def is_file(self) -> bool:
        """Whether there is such an object."""
        try:
            with self._explained():
                obstore.head(self.bucket.client, self.key)
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Whether there is any object below."""
        with self._explained():
            found = obstore.list_with_delimiter(self.bucket.client, self.key)
        return bool(found["objects"] or found["common_prefixes"])

    def exists(self) -> bool:
        """Whether there is an object of this name, or below it."""
        return self.is_file() or self.is_dir()

    def glob(self, pattern: str) -> list["ObjectPath"]:
        """What lies directly in this folder and has a name of the pattern."""
        with self._explained():
            found = obstore.list_with_delimiter(self.bucket.client, self.key)
        keys = [*found["common_prefixes"], *(one["path"] for one in found["objects"])]
        paths = [ObjectPath(self.bucket, key) for key in keys]
        return [path for path in paths if fnmatchcase(path.name, pattern)]

    def read_bytes(self) -> bytes:
        """The whole object.

        Raises:
            FileNotFoundError: there is none.
        """
        return self.read_tagged()[0]

    def read_text(self) -> str:
        """The whole object, as UTF-8."""
        return self.read_bytes().decode()

    def read_tagged(self) -> tuple[bytes, dict[str, str]]:
        """The whole object, and which version of it that is.

        Raises:
            FileNotFoundError: there is none.
        """
        with self._explained():
            got = obstore.get(self.bucket.client, self.key)
            return bytes(got.bytes()), _version(got.meta)

    def read_parts(self, starts: Sequence[int], length: int) -> list[np.ndarray]:
        """Parts of the object, shorter or empty where it ends before them.

        Raises:
            FileNotFoundError: there is no such object.
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
        """Put an object: whole, or on an error not at all as far as this process can tell.

        Args:
            data: all of its content.
            exclusive: refuse to replace an object.

        Raises:
            FileExistsError: exclusive, and there is an object of other content.
            UserError: the server refuses, or this process may no longer write.
        """
        self.bucket.before_write()
        try:
            with self._explained():
                self._put(data, "create" if exclusive else "overwrite")
        except FileExistsError:
            # A put whose answer was lost is tried again, and then meets its own object.
            if self.read_bytes() != data:
                raise
        except FileNotFoundError as error:
            raise UserError(f"{self} cannot be used: the bucket is gone: {_GO_ON}") from error

    def write_over(self, data: bytes, version: dict[str, str] | None) -> dict[str, str] | None:
        """Put an object in place of one version of it.

        Args:
            data: all of its content.
            version: that is replaced; None: there is no object yet.

        Returns:
            the new version; None where there is another, such as this very one after a put
            that was tried again because its answer was lost.
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
        """Give the object another name: a copy, then a removal."""
        self.bucket.before_write()
        with self._explained():
            obstore.rename(self.bucket.client, self.key, target.key)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the object."""
        self.bucket.before_write()
        try:
            with self._explained():
                obstore.delete(self.bucket.client, self.key)
        except FileNotFoundError:  # not every server says so
            if not missing_ok:
                raise

    def remove_tree(self) -> None:
        """Remove every object below."""
        with self._explained():
            for some in obstore.list(self.bucket.client, self.key):
                self.bucket.before_write()
                obstore.delete(self.bucket.client, [one["path"] for one in some])

    def upload(self, folder: Path, *, last: str) -> None:
        """Put the files of a folder below this path.

        Args:
            folder: local.
            last: the file that tells a reader that all are there.
        """
        files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        for name in sorted(files, key=lambda name: str(name) == last):
            (self / name.as_posix()).write((folder / name).read_bytes())

    def store(self) -> S3Store | GCSStore:
        """What lies below, for zarr."""
        return self.bucket.store(self.key, _AT_WORK)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with _explained(str(self), _GO_ON):
            yield


def _version(of: Any) -> dict[str, str]:
    """What names one version of an object: S3 looks at the one, Google at the other."""
    return {name: of[name] for name in ("e_tag", "version") if of.get(name)}
