"""How many random patterns each rule can hold, and when masks take as many bytes as it does.

Capacities are for patterns of D units, half of whose bits are one, as D grows. Shape letters:
D units.
"""

from collections.abc import Callable
from math import log, sqrt

BITS_PER_BYTE = 8

_CAPACITIES: dict[str, Callable[[int], float]] = {
    # A few bits of each wrong; all of them right: D / (2 ln D) (Amit et al. 1985; McEliece
    # et al. 1987).
    "hebb": lambda dim: 0.138 * dim,
    "hebb_exact": lambda dim: dim / (2 * log(dim)),
    # Storkey & Valabregue 1999, all bits right.
    "storkey": lambda dim: dim / sqrt(2 * log(dim)),
    # As fixed points; a cue with errors leads back to fewer (Kanter & Sompolinsky 1987).
    "projection": lambda dim: float(dim),
    # Gardner 1988, without any margin.
    "perceptron": lambda dim: 2.0 * dim,
}


def capacity(rule: str, dim: int) -> float:
    """Patterns that a rule can hold.

    Args:
        rule: hebb, hebb_exact, storkey, projection or perceptron.
        dim: D, at least 2.

    Raises:
        ValueError: another rule.
    """
    if rule not in _CAPACITIES:
        raise ValueError(f"rule must be one of {', '.join(_CAPACITIES)}, got {rule!r}")
    return _CAPACITIES[rule](dim)


def break_even(dim: int, reservoir_bytes: int) -> float:
    """Number of masks of D bits that take as many bytes, packed, as a reservoir."""
    return BITS_PER_BYTE * reservoir_bytes / dim
