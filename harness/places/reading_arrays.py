"""Read bytes of a regular file into numpy arrays.

These functions are not in reading.py, so that `status` and `--help` need not import numpy.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.places.places import Place
from harness.places.reading import open_regular


def read_array(path: Place, at_most: int) -> np.ndarray:
    """Read the first bytes of a file into a writable uint8 array.

    Args:
        path: path of the file.
        at_most: the largest number of bytes to read.

    Raises:
        FileNotFoundError: the file is missing.
        UserError: the path is no regular file.
    """
    if isinstance(path, Path):
        with open_regular(path) as file:
            return np.fromfile(file, np.uint8, at_most)
    return np.frombuffer(path.read_bytes(), np.uint8)[:at_most].copy()


def read_into(path: Place, starts: Sequence[int], rows: np.ndarray) -> None:
    """Fill the rows of an array with bytes of a file. Each row has an offset in the file.

    If the file ends before a row is full, the rest of the row stays unchanged.

    Args:
        path: path of the file.
        starts: for each of the B rows, the offset of its first byte in the file.
        rows: (B, R) uint8 array to fill: B rows of R bytes.

    Raises:
        FileNotFoundError: the file is missing.
        UserError: the path is no regular file.
    """
    if not isinstance(path, Path):
        for row, part in zip(rows, path.read_parts(starts, rows.shape[1]), strict=True):
            row[: len(part)] = part
        return
    with open_regular(path, buffering=0) as file:
        for row, start in zip(rows, starts, strict=True):
            file.seek(start)
            file.readinto(row.data)
