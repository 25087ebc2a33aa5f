"""Find the mask with the smallest product, reading the strongest evidence first.

Units of the first layer are read in order of evidence energy, coarsely rounded. After each
slice, what is unread may still move the difference of two tasks' products: masks differ
from each other like coins, so by a normal number of variance sum(v^2) / 2 over the unread
evidence v. Tasks that lie behind the leader by more than `confidence` of its standard
deviations are out; the few that are left are decided by exact products of all evidence.

It may differ from the exact answer where a task that was dropped would have caught up.
Shape letters: T masks, U units.
"""

from math import sqrt

import numpy as np

from supsup_core.bits.evidence import Evidence, LayerEvidence
from supsup_core.bits.scan import Scan, Smallest

# Found with 2500 masks by benchmarks/inference.py --agreement: at 4 nearly one query in a
# thousand is answered otherwise, and at 5 three times as many tasks are decided exactly.
CONFIDENCE = 4.5
# The first slice is this share of the units that have evidence, each later one as much as
# was read before: a slice costs more to begin than to read.
_FIRST_SLICE = 0.3
_LEAST = 8
# Rounding may cost this share of the first layer's evidence energy: a digit or two a value.
_ROUNDING = 0.02
# As few are decided exactly sooner than by one more slice over all tasks.
_FEW = 8
# Times that deciding a task takes as long as a task of an exact scan over all: where the
# evidence tells so few apart (its task is none of these, or the first layer does not), the
# scan is the sooner.
_DECIDING = 5


class RankedScan:
    """Evidence-ordered scans over masks on the CPU.

    Args:
        scan: the masks, and the exact products.
        confidence: standard deviations behind the leader at which a task is dropped.
    """

    def __init__(self, scan: Scan, confidence: float = CONFIDENCE) -> None:
        self._scan, self._confidence = scan, confidence

    def smallest(self, evidence: Evidence) -> Smallest:
        """The task whose mask most probably has the smallest product with the evidence."""
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
            # Of all tasks: a dropped one may return, for what it lies behind is known.
            behind = products - products.min()
            left = np.flatnonzero(behind <= self._confidence * sqrt(max(unread, 0.0) / 2))
            if len(left) <= _FEW:
                break
            start, end = end, 2 * end
        if len(left) * _DECIDING > len(masks):
            return self._scan.smallest(evidence)
        return self._scan.decide(evidence, left, num_read)


def coarse_scale(layer: LayerEvidence, energies: np.ndarray) -> float:
    """What evidence is multiplied by before rounding, so that rounding costs _ROUNDING.

    It takes 1/12 of a squared unit off a value on average.
    """
    energy = float(energies.sum())
    num_values = np.count_nonzero(energies) * layer.received.any(axis=0).sum()
    return sqrt(num_values / (12 * _ROUNDING * energy)) if energy else 1.0
