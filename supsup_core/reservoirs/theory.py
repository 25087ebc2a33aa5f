"""How many random patterns a rule can hold, and how many packed masks take as many bytes.

The formulas are true for a large number of units D, and for patterns with as many ones as zeros.
"""

from collections.abc import Callable
from math import log, sqrt

BITS_PER_BYTE = 8

_CAPACITIES: dict[str, Callable[[int], float]] = {
    # Hebb's rule can hold 0.138 D patterns with a few wrong bits each (Amit et al. 1985), or
    # D / (2 ln D) patterns with all bits right (McEliece et al. 1987).
    "hebb": lambda dim: 0.138 * dim,
    "hebb_exact": lambda dim: dim / (2 * log(dim)),
    # This many patterns have all bits right (Storkey & Valabregue 1999).
    "storkey": lambda dim: dim / sqrt(2 * log(dim)),
    # This many patterns are fixed points. Fewer can be recalled from a cue with errors (Kanter &
    # Sompolinsky 1987).
    "projection": lambda dim: float(dim),
    # This many patterns are stable with a margin of 0 (Gardner 1988).
    "perceptron": lambda dim: 2.0 * dim,
}


def capacity(rule: str, dim: int) -> float:
    """Compute the number of random patterns that a rule can hold.

    Args:
        rule: "hebb" (a few bits may be wrong), "hebb_exact" (no bit may be wrong), "storkey",
            "projection" or "perceptron".
        dim: D, the number of units, at least 2.

    Raises:
        ValueError: the rule is not known.
    """
    if rule not in _CAPACITIES:
        raise ValueError(f"rule must be one of {', '.join(_CAPACITIES)}, got {rule!r}")
    return _CAPACITIES[rule](dim)


def break_even(dim: int, reservoir_bytes: int) -> float:
    """Compute the number of packed masks that take as many bytes as a reservoir.

    Args:
        dim: D, the number of bits of a mask.
        reservoir_bytes: the memory of the reservoir, in bytes.
    """
    return BITS_PER_BYTE * reservoir_bytes / dim
