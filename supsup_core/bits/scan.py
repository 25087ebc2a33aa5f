"""Find the masks with the smallest products with a query's evidence, exactly.

Rounded evidence is multiplied with all masks by adding rows of bits (transposed.py). What
rounding can have changed is bounded, so the masks that may still be the smallest are
known; they are few, and are decided in float64 on their packed rows. The answer is that of
float64 over all masks, the lowest task among equals.

Shape letters: T masks, R bytes of a packed row, V 64-bit words of it, N words that have
evidence, C candidates, H the half of them.
"""

from dataclasses import dataclass, replace
from math import inf, sqrt

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8, UInt64

from supsup_core.bits.evidence import Evidence, Size
from supsup_core.bits.threads import Threads
from supsup_core.bits.transposed import TransposedMasks, Weighed
from supsup_core.kernels.bits import exact_products as fill_exact_products
from supsup_core.kernels.bits import lay_out

# Rounding may change a difference of two products by this many of their standard
# deviations. Found by benchmarks/inference.py: finer reads more digits, coarser leaves more
# masks to be decided.
EXACT_SLACK = 0.7
# A cut through the middle of the products leaves more of them open.
HALVING_SLACK = 0.02
# As few candidates are decided one by one sooner than by adding rows of all masks.
_FEW = 512
# Evidence is a float32 product of float32 factors, with the ground and without it: what
# the two differ by, as a share of the sum of absolute values.
_FLOAT32 = 5 * 2.0**-24
_WORD_BITS = 64


@dataclass(frozen=True)
class Smallest:
    """The task found, and the share of the masks' bits read for it, at most.

    Bits that are read twice, as those of a task that is decided exactly, count twice; an exact
    scan that follows a ranked one counts alone.
    """

    task: int
    bits_read_fraction: float


class Scan:
    """Exact scans over masks on the CPU.

    Args:
        masks: transposed.
        rows: the same, packed; kept, not copied.
        num_weights: of the network.
        threads: that share a scan.
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
        """The task whose mask has the smallest product with the evidence."""
        weighed = self._weigh(evidence, EXACT_SLACK)
        products = weighed.products
        leaders = np.flatnonzero(products <= products.min() + weighed.slack)
        return self.decide(evidence, leaders, weighed.num_rows)

    def decide(
        self, evidence: Evidence, leaders: Int64[np.ndarray, " C"], num_rows: int
    ) -> Smallest:
        """The smallest of a few, exactly.

        Args:
            evidence: all of it counts.
            leaders: lowest task first.
            num_rows: weights whose bits were read already.
        """
        read = num_rows / self.num_weights
        if len(leaders) == 1:
            return Smallest(int(leaders[0]), read)
        read += len(leaders) / len(self.masks)
        return Smallest(int(leaders[self.exact(evidence, leaders).argmin()]), min(1.0, read))

    def smaller_part(
        self, evidence: Evidence, tasks: Int64[np.ndarray, " C"], num_kept: int
    ) -> Int64[np.ndarray, " H"]:
        """The chosen tasks with the smallest products, lowest task first.

        Of equal products the lower task stays.
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
        """Products of chosen masks in float64."""
        return exact_products(self._words, evidence, tasks, self._threads)

    def _weigh(self, evidence: Evidence, slack: float) -> Weighed:
        """Products of all evidence, rounded so that the slack is about as wide as asked for."""
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
        # A sum over several images is rounded at every term.
        rounding = 2 * _FLOAT32 * len(first.deltas) * (size.absolute + ground)
        return replace(weighed, slack=weighed.slack + rounding)


def exact_products(
    words: UInt64[np.ndarray, "T V"],
    evidence: Evidence,
    tasks: Int64[np.ndarray, " C"],
    threads: Threads,
) -> Float64[np.ndarray, " C"]:
    """<evidence, M_i> of chosen masks, bit by bit in float64.

    Args:
        words: packed rows as words of 64 bits.
        evidence: all of it counts.
        tasks: which rows.
        threads: that share them.
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
    """All evidence where the bits lie: which words of a packed row have any, and their values."""
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
    """What values are multiplied by before rounding, for a slack of so many deviations.

    Rounding takes a quarter of a unit off a value on average, and a product's standard
    deviation is half the root of the values' squares, where masks differ like coins.
    """
    if not size.count:  # no evidence: any scale does
        return 1.0
    finest = _LARGEST / size.largest
    if not 0 < size.squares < inf:  # so small or large that its squares are lost
        return finest
    return min(size.count / (2 * slack * sqrt(size.squares)), finest)
