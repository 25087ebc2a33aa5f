"""Find the masks that have the smallest products with a query's evidence. The answer is exact.

The scan rounds the evidence, and multiplies it with all masks by adding rows of bits
(transposed.py). The effect of rounding is bounded, so after the scan only a few masks can have the
smallest product. For these masks, products in float64 are computed from the packed rows, and the
smallest of them gives the answer. This is the same answer as with float64 products of all masks. If
products are equal, the lowest task number wins.

Shape letters: T masks, R bytes and V 64-bit words of a packed row, N 64-bit words whose bits have
evidence, C candidates, H candidates that are kept.
"""

from dataclasses import dataclass, replace
from math import inf, nan, sqrt

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8, UInt64

from supsup_core.bits.evidence import Evidence, Size
from supsup_core.bits.threads import Threads
from supsup_core.bits.transposed import TransposedMasks, Weighed
from supsup_core.inference.answers import NO_TASK
from supsup_core.kernels.bits import exact_products as fill_exact_products
from supsup_core.kernels.bits import lay_out

# Rounding may change the difference of two products by this many standard deviations of a product.
# The value was chosen with benchmarks/inference.py. With finer rounding, the scan adds more digits.
# With coarser rounding, more masks need exact products.
EXACT_SLACK = 0.7
# Halving separates the products near their median. Many products are close to the median, so
# rounding must be finer.
HALVING_SLACK = 0.02
# For up to this many candidates, their exact products take less time than a scan over all masks.
_FEW = 512
# Evidence is a float32 product of float32 factors. Because of rounding, evidence computed with the
# ground differs from evidence computed without the ground. The difference is at most this fraction
# of the sum of absolute values.
_FLOAT32 = 5 * 2.0**-24
_WORD_BITS = 64


@dataclass(frozen=True)
class Smallest:
    """The result of one query: the task whose mask has the smallest product with the evidence.

    Attributes:
        task: the task's number.
        runner_up: the task with the second smallest product; NO_TASK with one mask.
        margin: the second smallest product minus the smallest; NaN if it is unknown.
        bits_read_fraction: number of bits read, divided by the number of bits of all masks; at
            most 1. Bits of a mask that also needs an exact product count twice. If an exact scan
            follows a ranked scan, only the exact scan counts. Bits that are read only to find the
            runner-up do not count.
    """

    task: int
    runner_up: int
    margin: float
    bits_read_fraction: float


class Scan:
    """Exact scans over masks on the CPU.

    Args:
        masks: the transposed masks.
        rows: (T, R) the same masks as packed rows. The array is not copied, so it must not change.
        num_weights: number of weights of the network.
        threads: the threads that divide a scan.
    """

    def __init__(
        self,
        masks: TransposedMasks,
        rows: UInt8[np.ndarray, "T R"],
        num_weights: int,
        threads: Threads,
    ) -> None:
        self.masks = masks
        self.num_weights = num_weights
        self._words = np.ascontiguousarray(rows).view(np.uint64)
        self._threads = threads

    def smallest(self, evidence: Evidence) -> Smallest:
        """Find the task whose mask has the smallest product with a query's evidence."""
        weighed = self._weigh(evidence, EXACT_SLACK)
        products = weighed.products
        second = np.partition(products, 1)[1] if len(products) > 1 else products[0]
        close = np.flatnonzero(products <= second + weighed.slack)
        num_leaders = np.count_nonzero(products <= products.min() + weighed.slack)
        return self.decide(evidence, close, weighed.num_rows, int(num_leaders))

    def decide(
        self, evidence: Evidence, close: Int64[np.ndarray, " C"], num_rows: int, num_leaders: int
    ) -> Smallest:
        """Choose two of a few tasks: those whose masks have the smallest exact products.

        Args:
            evidence: the query's evidence, in all layers.
            close: (C,) task numbers to choose from, lowest first.
            num_rows: number of weights whose bits were already read in the transposed masks. The
                result's `bits_read_fraction` includes these bits.
            num_leaders: number of these tasks that may have the smallest product. The others may
                only have the second smallest product.
        """
        read = num_rows / self.num_weights
        if num_leaders > 1:
            read = min(1.0, read + num_leaders / len(self.masks))
        return self._two_smallest(evidence, close, read)

    def smallest_of(self, evidence: Evidence, tasks: Int64[np.ndarray, " C"]) -> Smallest:
        """Choose two of some tasks: those whose masks have the smallest exact products.

        Args:
            evidence: the query's evidence.
            tasks: (C,) task numbers, lowest first.
        """
        if len(tasks) > max(_FEW, 2):
            weighed = self._weigh(evidence, HALVING_SLACK)
            products = weighed.products[tasks]
            tasks = tasks[products <= np.partition(products, 1)[1] + weighed.slack]
        return self._two_smallest(evidence, tasks, 1.0)

    def _two_smallest(
        self, evidence: Evidence, tasks: Int64[np.ndarray, " C"], read: float
    ) -> Smallest:
        if len(tasks) == 1:
            return Smallest(int(tasks[0]), NO_TASK, nan, read)
        products = self.exact(evidence, tasks)
        first, second = np.argsort(products, kind="stable")[:2]
        margin = float(products[second] - products[first])
        return Smallest(int(tasks[first]), int(tasks[second]), margin, read)

    def smaller_part(
        self, evidence: Evidence, tasks: Int64[np.ndarray, " C"], num_kept: int
    ) -> Int64[np.ndarray, " H"]:
        """Keep the tasks whose masks have the smallest products with the evidence.

        If products are equal, the lower task number is kept.

        Args:
            evidence: the query's evidence.
            tasks: (C,) task numbers of the candidates, lowest first.
            num_kept: H, the number of tasks to keep.

        Returns:
            (H,) task numbers that are kept, lowest first.
        """
        if len(tasks) <= _FEW:
            return np.sort(tasks[np.argsort(self.exact(evidence, tasks), kind="stable")[:num_kept]])
        weighed = self._weigh(evidence, HALVING_SLACK)
        products = weighed.products[tasks]
        cut = np.partition(products, num_kept - 1)[num_kept - 1]
        kept = tasks[products < cut - weighed.slack]
        open_ = tasks[np.abs(products - cut) <= weighed.slack]
        ranking = np.argsort(self.exact(evidence, open_), kind="stable")
        return np.sort(np.concatenate([kept, open_[ranking[: num_kept - len(kept)]]]))

    def exact(
        self, evidence: Evidence, tasks: Int64[np.ndarray, " C"]
    ) -> Float64[np.ndarray, " C"]:
        """Compute the product of each task's mask and the evidence, in float64.

        Args:
            evidence: the query's evidence.
            tasks: (C,) task numbers.
        """
        return exact_products(self._words, evidence, tasks, self._threads)

    def _weigh(self, evidence: Evidence, slack: float) -> Weighed:
        """Round the evidence of all layers, and multiply it with all masks.

        Args:
            evidence: the query's evidence.
            slack: rounding may change the difference of two products by about this many standard
                deviations of a product.
        """
        parts, size = [], Size(0, 0.0, 0.0, 0.0)
        for layer in evidence.layers:
            parts.append(layer.values(layer.live()))
            size += layer.size(parts[-1])
        first, terms, ground = evidence.layers[0], None, 0.0
        if first.ground:
            live = parts[0].units
            terms = live, first.ground_factors(live)
            ground = float(np.abs(terms[1]).sum()) * first.received.shape[1]
        weighed = self.masks.weigh(parts, scale_for(size, slack), terms)
        # A sum over several images is rounded after each image.
        rounding = 2 * _FLOAT32 * len(first.deltas) * (size.absolute + ground)
        return replace(weighed, slack=weighed.slack + rounding)


def exact_products(
    words: UInt64[np.ndarray, "T V"],
    evidence: Evidence,
    tasks: Int64[np.ndarray, " C"],
    threads: Threads,
) -> Float64[np.ndarray, " C"]:
    """Compute the product of the evidence and each chosen mask, bit by bit in float64.

    Args:
        words: (T, V) packed rows of T masks, as V 64-bit words each.
        evidence: the query's evidence, in all layers.
        tasks: (C,) row indices of the chosen masks.
        threads: the threads that divide the chosen masks.

    Returns:
        (C,) products, in the order of `tasks`.
    """
    places, values = laid_out(evidence)
    flat, products = values.reshape(-1), np.empty(len(tasks))
    threads.split(
        lambda start, end: fill_exact_products(words, tasks, places, flat, products, start, end),
        len(tasks),
    )
    return products


def laid_out(
    evidence: Evidence,
) -> tuple[Int64[np.ndarray, " N"], Float32[np.ndarray, "N 64"]]:
    """Arrange the evidence of all layers in the order of the bits of a packed row.

    Returns:
        Two arrays. N of the 64-bit words of a packed row have bits with evidence. The first array,
        (N,), has the indices of these words. The second array, (N, 64), has the evidence of each
        bit of these words.
    """
    live = [layer.live() for layer in evidence.layers]
    pairs = list(zip(evidence.layers, live, strict=True))
    most = sum(len(units) * (layer.weights.shape[1] // _WORD_BITS + 2) for layer, units in pairs)
    places, values = np.empty(most, np.int64), np.empty((most, _WORD_BITS), np.float32)
    count = 0
    for layer, units in pairs:
        outer = layer.outer(units)
        count = lay_out(outer, layer.weights, units, layer.first, places, values, count)
    return places[:count], values[:count]


_LARGEST = 2.0**23


def scale_for(size: Size, slack: float) -> float:
    """Choose the factor that multiplies values before rounding to whole numbers.

    The formula uses 1/4 as the mean absolute rounding error. It treats the bits of the masks as
    fair coin tosses. The standard deviation of a product is then sqrt(sum of value^2) / 2.

    Args:
        size: statistics of the values.
        slack: rounding may change the difference of two products by this many standard deviations
            of a product.
    """
    if not size.count:  # without evidence, every scale gives the same products
        return 1.0
    finest = _LARGEST / size.largest
    if not 0 < size.squares < inf:  # the squares underflowed or overflowed
        return finest
    return min(size.count / (2 * slack * sqrt(size.squares)), finest)
