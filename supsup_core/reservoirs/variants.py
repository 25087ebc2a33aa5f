"""Reservoirs made of others: for patterns that are mostly -1 or +1, and in few bits.

Shape letters: D units, B states, U chosen units.
"""

from math import sqrt

from jaxtyping import Float32, Int64
from torch import Tensor

from supsup_core.reservoirs.protocol import Reservoir
from supsup_core.reservoirs.quadratic import Quadratic


class Centred:
    """Takes the mean off patterns and states before a reservoir sees them.

    Patterns with other than half of their bits one all pull the same way, and the mean is what
    is recalled (Amit, Gutfreund & Sompolinsky 1987). Centred, +1 and -1 pull with unequal
    strength; a threshold half-way between tells them apart (Tsodyks & Feigelman 1988).

    Args:
        inner: the reservoir.
        density: fraction of +1 in the patterns, in (0, 1).
    """

    def __init__(self, inner: Reservoir, density: float) -> None:
        if not 0 < density < 1:
            raise ValueError(f"density must be in (0, 1), got {density}")
        self._inner, self._mean = inner, 2 * density - 1
        self._scale = 1 / sqrt(1 - self._mean**2)
        self._threshold = -self._mean * self._scale
        self.dim = inner.dim

    @property
    def num_stored(self) -> int:
        """Patterns so far."""
        return self._inner.num_stored

    @property
    def num_bytes(self) -> int:
        """Of the reservoir within."""
        return self._inner.num_bytes

    def store(self, pattern: Float32[Tensor, " D"]) -> None:
        """Take one pattern of -1 and +1 in."""
        self._inner.store(self._centred(pattern))

    def field(
        self, states: Float32[Tensor, "B D"], units: Int64[Tensor, " U"] | None = None
    ) -> Float32[Tensor, "B _"]:
        """Of the centred states, above the threshold."""
        return self._inner.field(self._centred(states), units) - self._threshold

    def energy(self, states: Float32[Tensor, "B D"]) -> Float32[Tensor, " B"]:
        """Of the centred states, and what the threshold adds."""
        centred = self._centred(states)
        return self._inner.energy(centred) + self._threshold * centred.sum(dim=1)

    def _centred(self, states: Tensor) -> Tensor:
        """A unit that is not known, 0, is at its mean."""
        return (states - self._mean * (states != 0)) * self._scale


class Quantised(Quadratic):
    """The weights of a reservoir rounded to few bits, to recall from; computed with as floats.

    Args:
        inner: whose weights are rounded: each unit's to its own largest one.
        num_bits: of a weight, 2 to 8.
    """

    def __init__(self, inner: Quadratic, num_bits: int) -> None:
        if not 2 <= num_bits <= 8:
            raise ValueError(f"num_bits must be in [2, 8], got {num_bits}")
        self.dim, self.num_stored, self._num_bits = inner.dim, inner.num_stored, num_bits
        weights = inner.weights.clone().fill_diagonal_(0)
        largest = 2 ** (num_bits - 1) - 1
        worth = weights.abs().amax(dim=1, keepdim=True).clamp_min(1e-30) / largest
        self.weights = (weights / worth).round() * worth

    @property
    def num_bytes(self) -> int:
        """Of the numbers, packed, and of what they are worth."""
        return -(-self.dim * self.dim * self._num_bits // 8) + 4 * self.dim

    def _change(self, pattern: Float32[Tensor, " D"]) -> None:
        raise NotImplementedError("a quantised reservoir takes no more patterns: store, then round")
