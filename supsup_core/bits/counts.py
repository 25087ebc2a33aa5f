"""Count, for each bit position, how many masks have a one. The counts define the superposition.

Shape letters: T masks, C chosen masks, R bytes of a packed row, F = 8 R bits of a packed row.
"""

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from supsup_core.bits.threads import Threads
from supsup_core.kernels.counting import count_ones
from supsup_core.kernels.vectors import LANES


def ones_plain(
    rows: UInt8[np.ndarray, "T R"], chosen: Int64[np.ndarray, " C"]
) -> Int32[np.ndarray, " F"]:
    """Count, for each bit position, how many of the chosen rows have a one.

    This is the simple form, with NumPy only. Tests compare `ones_fused` with it.

    Args:
        rows: (T, R) packed masks, R bytes each.
        chosen: (C,) indices of the chosen rows.

    Returns:
        (8 R,) counts, one per bit of a row.
    """
    bits = np.unpackbits(rows[chosen], axis=1, bitorder="little")
    ones: np.ndarray = bits.sum(axis=0, dtype=np.int32)
    return ones


def ones_fused(
    rows: UInt8[np.ndarray, "T R"], chosen: Int64[np.ndarray, " C"], threads: Threads
) -> Int32[np.ndarray, " F"]:
    """Compute the same counts as `ones_plain` in less time, on several threads.

    Carry-save adders count the ones of 512 bit positions at a time.
    """
    words = np.ascontiguousarray(rows).view(np.uint64)
    counts = np.zeros(8 * rows.shape[1], np.int32)
    threads.split(
        lambda start, end: count_ones(words, chosen, counts, start, end), words.shape[1] // LANES
    )
    return counts


class OnesCounter:
    """A counter. For each bit position, it counts how many of the added masks have a one.

    Args:
        row_bytes: R, the number of bytes of a packed row.
        threads: the threads that count.

    Attributes:
        num_tasks: number of masks added so far.
        counts: (8 R,) for each bit position, the number of added masks that have a one.
    """

    def __init__(self, row_bytes: int, threads: Threads) -> None:
        self._threads = threads
        self.num_tasks = 0
        self.counts: Int32[np.ndarray, " F"] = np.zeros(8 * row_bytes, np.int32)

    def add(self, rows: UInt8[np.ndarray, "T R"]) -> None:
        """Count the ones of more masks, and check the new counts.

        Args:
            rows: (T, R) packed masks.

        Raises:
            ArithmeticError: the sum of the new counts is not the number of ones in `rows`.
        """
        added = ones_fused(rows, np.arange(len(rows)), self._threads)
        ones = int(np.bitwise_count(rows).sum(dtype=np.int64))
        if int(added.sum(dtype=np.int64)) != ones:
            raise ArithmeticError(
                f"the counts of ones must sum to {ones}, got {added.sum(dtype=np.int64)}: run the "
                "command again; if the error returns, test the machine's memory"
            )
        self.counts += added
        self.num_tasks += len(rows)
