"""Files of packed masks: one file per chunk of the array `masks`, in the format of zarr.

harness/storage/shared.py keeps the chunks of other arrays in the same way.

This module reads the files without zarr, so that it can report one wrong row instead of a whole
chunk. It also writes them without zarr: zarr replaces a chunk atomically, but does not flush the
new file first, so a power cut could lose masks that were already committed.

Shape letters: C rows per chunk, B rows per read, R bytes per row.
"""

from math import log2
from typing import cast

import google_crc32c
import numpy as np
from jaxtyping import UInt8

from harness.places.durable import fsync, write_durably
from harness.places.places import Place
from harness.places.reading_arrays import read_array, read_into

CHUNK_BYTES = 2_500_000  # approximate, because the rows per chunk are a power of two
FILL = 255  # each byte of an unwritten row has this value. The last byte of every mask is 0
CRC_BYTES = 4  # zarr's crc32c codec appends these bytes, little-endian, to the data


class CorruptMask(Exception):  # noqa: N818 - a finding about data, not a fault of the caller
    """The error for stored bytes that do not match their checksum.

    The message names the file, and the tasks if they are known.
    """


def chunk_rows(row_bytes: int) -> int:
    """Return the number of rows per chunk: a power of two, for chunks of about CHUNK_BYTES."""
    return int(2 ** max(0, round(log2(CHUNK_BYTES / row_bytes))))


def crc32c(data: np.ndarray) -> int:
    """Compute the CRC-32C of the bytes of a contiguous array."""
    return cast(int, google_crc32c.value(data))


class ChunkFiles:
    """The chunk files of one array, such as `masks`. Only its first axis is divided.

    Args:
        folder: folder of the array; with two axes, chunk i is the file `c/<i>/0` in this folder.
        rows: C, rows per chunk.
        row_bytes: R, bytes per row.
        num_axes: number of axes of the array.
    """

    def __init__(self, folder: Place, rows: int, row_bytes: int, num_axes: int = 2) -> None:
        self._folder, self._num_axes = folder, num_axes
        self._shape = (rows, row_bytes)
        self._kept: set[int] = set()  # chunks whose folders this process has flushed

    @property
    def rows(self) -> int:
        """C, the number of rows per chunk."""
        return self._shape[0]

    def path(self, chunk: int) -> Place:
        """Return the path of a chunk's file, which need not exist."""
        path = self._folder / "c" / str(chunk)
        for _ in range(self._num_axes - 1):
            path = path / "0"
        return path

    def empty(self) -> UInt8[np.ndarray, "C R"]:
        """Make the rows of a chunk to which nothing was ever written."""
        return np.full(self._shape, FILL, np.uint8)

    def examine(self, chunk: int) -> tuple[str, UInt8[np.ndarray, "C R"] | None]:
        """Read a chunk even if its file is damaged or missing.

        Returns:
            Two values: a reason and the rows. The reason says what is wrong with the file; it is ""
            for an intact file. The rows are None if the file is missing. If the file is too short,
            the missing bytes are 255 (FILL).

        Raises:
            UserError: the file's path is no regular file (for example, a link or a folder).
            OSError: the file exists but cannot be read.
        """
        size = self._shape[0] * self._shape[1]
        whole = size + CRC_BYTES
        try:
            raw = read_array(self.path(chunk), whole + 1)
        except FileNotFoundError:
            return "is missing", None
        if len(raw) != whole:
            rows = self.empty().reshape(-1)
            rows[: len(raw)] = raw[:size]
            got = "more" if len(raw) > whole else len(raw)
            return f"must have {whole} bytes, got {got}", rows.reshape(self._shape)
        rows = raw[:size]
        intact = crc32c(rows) == int.from_bytes(raw[size:].tobytes(), "little")
        return "" if intact else "does not match its checksum", rows.reshape(self._shape)

    def read_for_change(self, chunk: int) -> UInt8[np.ndarray, "C R"]:
        """Read the rows of a chunk that will be changed and written again.

        Returns:
            The rows. If the chunk has no file, all their bytes are 255 (FILL).

        Raises:
            CorruptMask: the chunk is damaged, so it must not be rewritten with a new checksum.
            OSError: the file exists but cannot be read.
        """
        reason, rows = self.examine(chunk)
        if rows is None:
            return self.empty()
        if reason:
            raise CorruptMask(f"{self.path(chunk)} {reason}")
        return rows

    def read_rows(self, chunk: int, places: np.ndarray) -> UInt8[np.ndarray, "B R"]:
        """Read some rows of a chunk, without a check of their checksums.

        Args:
            chunk: index of the chunk.
            places: (B,) indices of the rows in the chunk, each in [0, C).

        Returns:
            The rows. Bytes beyond the end of a truncated file are 0.

        Raises:
            FileNotFoundError: the chunk has no file.
            OSError: the file exists but cannot be read.
        """
        row_bytes = self._shape[1]
        rows = np.zeros((len(places), row_bytes), np.uint8)
        read_into(self.path(chunk), [place * row_bytes for place in places.tolist()], rows)
        return rows

    def write(self, chunk: int, rows: UInt8[np.ndarray, "C R"]) -> None:
        """Replace a chunk durably: when this method returns, the whole chunk is on disk.

        Raises:
            OSError: for example, the disk is full; the old file is unchanged.
        """
        path = self.path(chunk)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, rows.tobytes() + crc32c(rows).to_bytes(CRC_BYTES, "little"))
        if chunk in self._kept:
            return
        for i in range(1, self._num_axes + 1):  # the first write makes these folders
            fsync(path.parents[i])
        self._kept.add(chunk)
