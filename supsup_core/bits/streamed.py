"""Infer tasks among masks that do not fit in memory: packed rows pass by once.

Rows stay as they are packed. The first layer's evidence is rounded to a few bits and cut
into planes, and a row's product with it is AND and popcount. What is not read that way
(later layers, rounding) may move the difference of two products by a normal number, as in
ranked.py; the tasks that may still be the smallest are read again and decided exactly.

Shape letters: Q queries, T masks in all, B rows that pass by, R bytes of a row, N lines of
LANES words of 64 bits with evidence, P planes.
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

_PLANES = 6
# Rows that are held while open tasks are decided: a query without a clear leader leaves many.
_READ_AT_ONCE = 2048


@dataclass(frozen=True, eq=False)  # == of arrays has no single truth value
class _Planes:
    """A query's evidence of the first layer in bit planes.

    Attributes:
        lines: which LANES words of a row have any.
        planes: of those words.
        scale: what a whole number is worth.
        unread: squares of the evidence that is not in the planes.
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
    """One pass over masks for some queries.

    Args:
        queries: their evidence, under the superposition of all T masks.
        num_masks: T.
        threads: that share the work.
        confidence: standard deviations behind the leader at which a task is dropped.
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
        """Multiply the rows from task `first` on; parts may come in any order, and at once."""
        words, num_words = rows.view(np.uint64).reshape(-1), rows.shape[1] // 8
        for planes, products in zip(self._planes, self._products, strict=True):
            out = products[first : first + len(rows)]
            plane_products(words, num_words, planes.lines, planes.planes.reshape(-1), out)

    def open_tasks(self) -> list[Int64[np.ndarray, " C"]]:
        """For each query the tasks that may still have the smallest product."""
        found = []
        for planes, products in zip(self._planes, self._products, strict=True):
            behind = planes.scale * (products - products.min())
            found.append(np.flatnonzero(behind <= self._confidence * sqrt(planes.unread / 2)))
        return found

    def decide(
        self, read: Callable[[Int64[np.ndarray, " C"]], UInt8[np.ndarray, "C R"]]
    ) -> Int64[np.ndarray, " Q"]:
        """The task of each query: exact among those that are open.

        Args:
            read: tasks, lowest first -> their packed rows.
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
