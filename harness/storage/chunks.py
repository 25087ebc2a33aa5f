"""The files that hold packed masks: one a chunk of the array `masks`, as zarr would write it.

Read here as files, so that one bad row is told from its chunk; written here, so that a
chunk is on disk before it replaces the old one, which holds masks already committed.

Shape letters: C rows of a chunk, B rows of a read, R bytes of a row.
"""

from math import log2
from typing import cast

import google_crc32c
import numpy as np
from jaxtyping import UInt8

from harness.places.durable import fsync, write_durably
from harness.places.places import Place, read_array, read_into

CHUNK_BYTES = 2_500_000  # about: chunks hold a power of two of rows
FILL = 255  # every byte of a row never written; the last byte of a mask is 0
CRC_BYTES = 4  # zarr's crc32c codec puts them, little-endian, behind the data


class CorruptMask(Exception):  # noqa: N818 - a finding about data, not a fault of the caller
    """Stored bytes that do not match their checksum: names the tasks and the file."""


def chunk_rows(row_bytes: int) -> int:
    """Rows of a chunk: the power of two that comes nearest to CHUNK_BYTES."""
    return int(2 ** max(0, round(log2(CHUNK_BYTES / row_bytes))))


def crc32c(data: np.ndarray) -> int:
    """CRC-32C of an array's bytes; the array is contiguous."""
    return cast(int, google_crc32c.value(data))


class ChunkFiles:
    """The chunk files of one array `masks`.

    Args:
        folder: of the array; the file of chunk i is `c/<i>/0` in it.
        rows: C.
        row_bytes: R.
    """

    def __init__(self, folder: Place, rows: int, row_bytes: int) -> None:
        self._folder = folder
        self._shape = (rows, row_bytes)
        self._kept: set[int] = set()  # chunks whose folders this process has flushed

    @property
    def rows(self) -> int:
        """C."""
        return self._shape[0]

    def path(self, chunk: int) -> Place:
        """Of a chunk's file, which need not exist."""
        return self._folder / "c" / str(chunk) / "0"

    def empty(self) -> UInt8[np.ndarray, "C R"]:
        """The rows of a chunk in which nothing was ever written."""
        return np.full(self._shape, FILL, np.uint8)

    def examine(self, chunk: int) -> tuple[str, UInt8[np.ndarray, "C R"] | None]:
        """Read a chunk, whatever its file is like.

        Returns:
            what is wrong with the file, "" if nothing; and its rows, None if it is
            missing, filled up where it is too short.

        Raises:
            OSError: a file that is there but cannot be read.
        """
        try:
            raw = read_array(self.path(chunk))
        except FileNotFoundError:
            return "is missing", None
        size = self._shape[0] * self._shape[1]
        if len(raw) != size + CRC_BYTES:
            rows = self.empty().reshape(-1)
            rows[: len(raw)] = raw[:size]
            return f"must have {size + CRC_BYTES} bytes, got {len(raw)}", rows.reshape(self._shape)
        rows = raw[:size]
        intact = crc32c(rows) == int.from_bytes(raw[size:].tobytes(), "little")
        return "" if intact else "does not match its checksum", rows.reshape(self._shape)

    def read_for_change(self, chunk: int) -> UInt8[np.ndarray, "C R"]:
        """Read the rows of a chunk, to be changed and written.

        Raises:
            CorruptMask: the chunk is damaged; nothing may be built on it.
            OSError: a file that is there but cannot be read.
        """
        reason, rows = self.examine(chunk)
        if rows is None:
            return self.empty()
        if reason:
            raise CorruptMask(f"{self.path(chunk)} {reason}")
        return rows

    def read_rows(self, chunk: int, places: np.ndarray) -> UInt8[np.ndarray, "B R"]:
        """Read some rows of a chunk, unchecked: zeros past the end of a truncated file.

        Args:
            chunk: which.
            places: of the rows in the chunk, each in [0, C).

        Raises:
            FileNotFoundError: the chunk has no file.
            OSError: a file that is there but cannot be read.
        """
        row_bytes = self._shape[1]
        rows = np.zeros((len(places), row_bytes), np.uint8)
        read_into(self.path(chunk), [place * row_bytes for place in places.tolist()], rows)
        return rows

    def write(self, chunk: int, rows: UInt8[np.ndarray, "C R"]) -> None:
        """Replace a chunk: on disk, whole, once this returns.

        Raises:
            OSError: disk full and the like; the old file is still there.
        """
        path = self.path(chunk)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, rows.tobytes() + crc32c(rows).to_bytes(CRC_BYTES, "little"))
        if chunk in self._kept:
            return
        for folder in (path.parents[1], path.parents[2]):  # the first chunk makes masks/c
            fsync(folder)
        self._kept.add(chunk)
