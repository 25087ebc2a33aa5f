"""Find the mask whose product with the evidence is smallest, without reading all evidence.

The scan reads the units of the first layer in slices. It begins with the units that have the most
evidence energy (the sum of the squares of a unit's evidence). The evidence is rounded coarsely.
After each slice, the unread evidence v may still change the difference between two tasks' products.
The bits of two masks are treated as independent fair coin tosses. The change then has about a
normal distribution with variance sum(v^2) / 2. A task is dropped if its product exceeds the
smallest product by more than `confidence` standard deviations of this change. For the few tasks
that remain, exact products with all evidence are computed. The smallest of them gives the answer,
and the second smallest gives the runner-up. If one task remains, the runner-up is the task with the
second smallest product so far, which is approximate.

The answer differs from the exact answer if a dropped task has the smallest exact product.

Shape letters: O units of a layer.
"""

from math import nan, sqrt

import numpy as np

from supsup_core.bits.evidence import Evidence, LayerEvidence
from supsup_core.bits.scan import Scan, Smallest

# This value was chosen with benchmarks/inference.py --agreement on 2500 masks. With 4, nearly one
# query in a thousand gets an answer that differs from the exact answer. With 5, three times as many
# tasks need an exact product.
CONFIDENCE = 4.5
# The first slice reads this fraction of the units that have evidence. Each later slice reads as
# many units as all slices before it, because starting a slice costs more time than reading it.
_FIRST_SLICE = 0.3
_LEAST = 8  # smallest number of units in the first slice
# The squared rounding errors may sum to this fraction of the first layer's evidence energy. A
# rounded value then has one or two digits.
_ROUNDING = 0.02
# Exact products of up to this many tasks take less time than one more slice over all tasks.
_FEW = 8
# The exact product of one task takes this many times as long as an exact scan over all tasks takes
# per task. So if the slices drop few tasks, for example because no stored task is the query's task,
# an exact scan over all tasks is faster than exact products of the remaining tasks.
_DECIDING = 5


class RankedScan:
    """Approximate scans over masks on the CPU. They read the largest evidence first.

    A scan drops a task if the product of its mask and the evidence exceeds the smallest product by
    more than `confidence` standard deviations. Unread evidence may still change the difference of
    the two products. The standard deviation is that of this change.

    Args:
        scan: the exact scan over the same masks. It compares the tasks that are not dropped.
        confidence: the number of standard deviations.
    """

    def __init__(self, scan: Scan, confidence: float = CONFIDENCE) -> None:
        self._scan, self._confidence = scan, confidence

    def smallest(self, evidence: Evidence) -> Smallest:
        """Find the task whose mask most probably has the smallest product with the evidence.

        Args:
            evidence: the evidence of one query.
        """
        masks, first = self._scan.masks, evidence.layers[0]
        energies = first.energies()
        order = np.argsort(-energies, kind="stable")[: np.count_nonzero(energies)]
        later = sum(float(layer.energies().sum()) for layer in evidence.layers[1:])
        unread = float(energies.sum()) + later
        left, num_read = np.arange(len(masks)), 0
        products = np.zeros(len(masks))
        inverse = coarse_scale(first, energies)
        start, end = 0, max(_LEAST, int(_FIRST_SLICE * len(order)))
        while start < len(order):
            units = order[start:end]
            terms = (units, first.ground_factors(units)) if first.ground else None
            weighed = masks.weigh([first.values(units)], inverse, terms)
            products += weighed.products
            num_read += weighed.num_rows
            unread += weighed.variance - float(energies[units].sum())
            # Compare all tasks again, including dropped tasks: their partial products are up to
            # date, so a dropped task may come back.
            behind = products - products.min()
            left = np.flatnonzero(behind <= self._confidence * sqrt(max(unread, 0.0) / 2))
            if len(left) <= _FEW:
                break
            start, end = end, 2 * end
        if len(left) * _DECIDING > len(masks):
            return self._scan.smallest(evidence)
        if len(left) == 1:
            # The margin is unknown, because the scan has not read all evidence.
            runner_up = int(np.argpartition(products, 1)[1])
            read = num_read / self._scan.num_weights
            return Smallest(int(left[0]), runner_up, nan, read)
        return self._scan.decide(evidence, left, num_read, len(left))


def coarse_scale(layer: LayerEvidence, energies: np.ndarray) -> float:
    """Choose the factor that multiplies a layer's evidence before rounding to whole numbers.

    With this factor, the sum of the squared rounding errors is about _ROUNDING times the sum of
    `energies`. The formula uses 1/12 as the mean square of a rounding error.

    Args:
        layer: the evidence in the first layer.
        energies: (O,) for each of the layer's O units, the sum of the squares of its evidence.
    """
    energy = float(energies.sum())
    num_values = np.count_nonzero(energies) * layer.received.any(axis=0).sum()
    return sqrt(num_values / (12 * _ROUNDING * energy)) if energy else 1.0
