"""How many masks have a one at each weight: what a superposition of them comes to.

Shape letters: T masks, C chosen ones, F bits and R bytes of a packed row.
"""

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from supsup_core.bits.threads import Threads
from supsup_core.kernels.counting import count_ones
from supsup_core.kernels.vectors import LANES


def ones_plain(
    rows: UInt8[np.ndarray, "T R"], chosen: Int64[np.ndarray, " C"]
) -> Int32[np.ndarray, " F"]:
    """Ones at each bit over chosen rows."""
    bits = np.unpackbits(rows[chosen], axis=1, bitorder="little")
    ones: np.ndarray = bits.sum(axis=0, dtype=np.int32)
    return ones


def ones_fused(
    rows: UInt8[np.ndarray, "T R"], chosen: Int64[np.ndarray, " C"], threads: Threads
) -> Int32[np.ndarray, " F"]:
    """The same by carry-save counters: few operations a word of 64 bits."""
    words = np.ascontiguousarray(rows).view(np.uint64)
    counts = np.zeros(8 * rows.shape[1], np.int32)
    threads.split(
        lambda start, end: count_ones(words, chosen, counts, start, end), words.shape[1] // LANES
    )
    return counts


class OnesCounter:
    """Ones at each bit over all masks so far, kept up to date as masks arrive.

    Args:
        row_bytes: R.
        threads: that share the counting.

    Attributes:
        num_tasks: masks counted.
        counts: (F,).
    """

    def __init__(self, row_bytes: int, threads: Threads) -> None:
        self._threads = threads
        self.num_tasks = 0
        self.counts: Int32[np.ndarray, " F"] = np.zeros(8 * row_bytes, np.int32)

    def add(self, rows: UInt8[np.ndarray, "T R"]) -> None:
        """Count more masks; checked against popcounts of the rows.

        Raises:
            ArithmeticError: the counts do not add up to the ones of the rows.
        """
        added = ones_fused(rows, np.arange(len(rows)), self._threads)
        ones = int(np.bitwise_count(rows).sum(dtype=np.int64))
        if int(added.sum(dtype=np.int64)) != ones:
            raise ArithmeticError(f"counted {added.sum(dtype=np.int64)} ones of {ones}")
        self.counts += added
        self.num_tasks += len(rows)
