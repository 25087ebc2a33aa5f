"""Infer tasks among masks that do not fit in memory, by reading one packed row after another.

Rows are not transposed, because nearly all rows are read only once. The first layer's evidence is
rounded to a few bits and cut into bit planes. Its product with a row then takes only AND and
popcount. The evidence that is not in the planes (later layers, rounding errors) may change the
difference of two products. The change has about a normal distribution, as in ranked.py. Masks that
may still have the smallest product are read a second time. The smallest of their exact products
gives the answer.

Shape letters: Q queries, T masks, B rows of one call, R bytes of a row, N lines with evidence (a
line is LANES 64-bit words of a row), P bit planes, C tasks that may still be the answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from jaxtyping import Float64, Int64, UInt8, UInt64

from supsup_core.bits.evidence import Evidence
from supsup_core.bits.ranked import CONFIDENCE
from supsup_core.bits.scan import exact_products, laid_out
from supsup_core.bits.threads import Threads
from supsup_core.kernels.bits import cut_planes, plane_products
from supsup_core.kernels.vectors import LANES

_PLANES = 6  # bit planes per query: rounded values from -31 to 31
# Largest number of rows in memory at a time, while the exact products of open tasks are computed.
# (A task is open if its mask may have the smallest product.) Some queries have many open tasks.
_READ_AT_ONCE = 2048


@dataclass(frozen=True, eq=False)  # comparing arrays gives an array, not a bool
class _Planes:
    """A query's evidence in the first layer, as bit planes.

    Attributes:
        lines: indices of the lines that have evidence. (A line is LANES 64-bit words of a packed
            row.)
        planes: for each of these lines, the bit planes of the rounded evidence.
        scale: the factor that converts the whole numbers in the planes to evidence.
        unread: sum of the squares of the evidence that is not in the planes: rounding errors, and
            the evidence in later layers.
    """

    lines: Int64[np.ndarray, " N"]
    planes: UInt64[np.ndarray, "N P LANES"]
    scale: float
    unread: float


def _cut(evidence: Evidence) -> _Planes:
    words, values = laid_out(Evidence(evidence.layers[:1]))
    largest = float(np.abs(values).max(initial=0.0))
    scale = largest / (2 ** (_PLANES - 1) - 1) if largest else 1.0
    cut = np.empty((len(words), _PLANES), np.uint64)
    cut_planes(values.reshape(-1), 1 / scale, cut)
    lines, place = np.unique(words // LANES, return_inverse=True)
    planes = np.zeros((len(lines), _PLANES, LANES), np.uint64)
    planes[place, :, words % LANES] = cut
    exact = values.astype(np.float64)
    rest = exact - scale * np.rint(exact / scale)
    later = sum(float(layer.energies().sum()) for layer in evidence.layers[1:])
    return _Planes(lines, planes, scale, later + float(np.vdot(rest, rest)))


class StreamedScan:
    """Task inference for several queries, in one pass over all masks.

    The pass multiplies each mask by only a part of the evidence: the evidence of the first layer,
    rounded coarsely. The rest of the evidence would change the difference between two products. The
    standard deviation of this change is known. A task is dropped if its product exceeds the
    smallest product by more than `confidence` of these standard deviations.

    Args:
        queries: the evidence of each query, from the superposition of all masks.
        num_masks: T, the number of masks in the pass.
        threads: the threads that divide the exact products.
        confidence: the number of standard deviations.
    """

    def __init__(
        self,
        queries: Sequence[Evidence],
        num_masks: int,
        threads: Threads,
        confidence: float = CONFIDENCE,
    ) -> None:
        self._queries, self._threads, self._confidence = queries, threads, confidence
        self._planes = [_cut(query) for query in queries]
        self._products: Int64[np.ndarray, "Q T"] = np.zeros((len(queries), num_masks), np.int64)

    def take(self, first: int, rows: UInt8[np.ndarray, "B R"]) -> None:
        """Multiply some packed rows with the evidence of all queries.

        The rows may come in any order. Several threads may call this method at the same time.

        Args:
            first: task number of the first row.
            rows: (B, R) packed rows of B successive tasks.
        """
        words, num_words = rows.view(np.uint64).reshape(-1), rows.shape[1] // 8
        for planes, products in zip(self._planes, self._products, strict=True):
            out = products[first : first + len(rows)]
            plane_products(words, num_words, planes.lines, planes.planes.reshape(-1), out)

    def open_tasks(self) -> list[Int64[np.ndarray, " C"]]:
        """List, for each query, the tasks whose exact product may still be the smallest."""
        found = []
        for planes, products in zip(self._planes, self._products, strict=True):
            behind = planes.scale * (products - products.min())
            found.append(np.flatnonzero(behind <= self._confidence * sqrt(planes.unread / 2)))
        return found

    def decide(
        self, read: Callable[[Int64[np.ndarray, " C"]], UInt8[np.ndarray, "C R"]]
    ) -> Int64[np.ndarray, " Q"]:
        """For each query, choose the task of `open_tasks` that has the smallest exact product.

        Args:
            read: a function that reads packed rows. It takes (C,) task numbers, lowest first, and
                returns the (C, R) rows of these tasks.

        Returns:
            (Q,) the task number of each query's answer.
        """
        tasks = []
        for query, left in zip(self._queries, self.open_tasks(), strict=True):
            exact: list[Float64[np.ndarray, " C"]] = []
            for start in range(0, len(left), _READ_AT_ONCE):
                rows = np.ascontiguousarray(read(left[start : start + _READ_AT_ONCE]))
                words, some = rows.view(np.uint64), np.arange(len(rows))
                exact.append(exact_products(words, query, some, self._threads))
            tasks.append(int(left[np.concatenate(exact).argmin()]))
        return np.array(tasks)
