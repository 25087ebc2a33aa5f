"""Paths in object storage, with the few file operations that a run needs.

A put is the request that writes an object. When the put has returned, every read gives the whole
new object. So nothing needs to be flushed, and a crash leaves no partial object. Object storage has
no folders and no renames.

This module is imported only if run_dir is a URL, so a run on a disk does not need the package
obstore.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import GCSStore, S3Store

from harness.errors import UserError
from harness.places.bucket import AT_WORK, Bucket, explained, open_bucket

_GO_ON = "fix the cause and type the same command again; committed results are kept"


def open_url(url: str) -> "ObjectPath":
    """Open a path in a bucket, and check that the bucket answers.

    Args:
        url: s3://bucket/key or gs://bucket/key.

    Raises:
        UserError: see open_bucket.
    """
    scheme, _, rest = url.partition("://")
    name, _, key = rest.strip("/").partition("/")
    return ObjectPath(open_bucket(scheme, name, key), key)


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
        return self.bucket.store(self.key, AT_WORK)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with explained(str(self), _GO_ON):
            yield


def _version(of: Any) -> dict[str, str]:
    """Extract the identifier of an object's version from an answer of the server.

    A later put with this identifier replaces only this version of the object.

    Returns:
        A mapping from name to value. The names are "e_tag" and "version", if the server gives them.
        S3 compares e_tag, and Google compares version.
    """
    return {name: of[name] for name in ("e_tag", "version") if of.get(name)}
