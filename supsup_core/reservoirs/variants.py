"""Reservoirs made of others: for patterns that are mostly -1 or +1, and in few bits.

Shape letters: D units, B states, U chosen units.
"""

from copy import copy

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from supsup_core.arrays import check_shape
from supsup_core.reservoirs.protocol import Reservoir
from supsup_core.reservoirs.quadratic import Quadratic


class Centred:
    """Takes the mean of what is stored off patterns and states before a reservoir sees them.

    Patterns with other than half of their bits one, or with units that are one in most, all
    pull the same way, and the mean is what is recalled (Amit, Gutfreund & Sompolinsky 1987).
    Centred, +1 and -1 pull with unequal strength; a threshold half-way between tells them
    apart (Tsodyks & Feigelman 1988). The mean, of every unit, follows what comes: D more
    numbers, and nothing is stored twice.

    Args:
        inner: the reservoir.
        density: fraction of +1 to expect of patterns before any has come, in (0, 1).
        device: where the mean is kept.
        is_needed: whether any of this is; otherwise the mean is kept all the same, for a search
            to begin at.
    """

    # Patterns that the expectation counts for.
    _PRIOR = 10

    def __init__(
        self,
        inner: Reservoir,
        density: float = 0.5,
        device: torch.device | None = None,
        is_needed: bool = True,
    ) -> None:
        if not 0 < density < 1:
            raise ValueError(f"density must be in (0, 1), got {density}")
        self.inner, self.dim, self.num_stored = inner, inner.dim, 0
        self._is_needed = is_needed
        expected = self._PRIOR * (2 * density - 1)
        self._sum = torch.full((inner.dim,), expected, device=device)

    @property
    def num_bytes(self) -> int:
        """Of the reservoir within, and of the mean."""
        return self.inner.num_bytes + self._sum.numel() * self._sum.element_size()

    @property
    def mean(self) -> Float32[Tensor, " D"]:
        """Of every unit, as it is known so far."""
        return self._sum / (self._PRIOR + self.num_stored)

    def store(self, pattern: Float32[Tensor, " D"]) -> None:
        """Take one pattern of -1 and +1 in.

        Raises:
            ValueError: another length than D.
        """
        check_shape("pattern", pattern.shape, (self.dim,), "D")
        self._sum += pattern
        self.num_stored += 1
        self.inner.store(self.centred(pattern))

    def field(
        self, states: Float32[Tensor, "B D"], units: Int64[Tensor, " U"] | None = None
    ) -> Float32[Tensor, "B _"]:
        """Of the centred states, above the threshold."""
        field = self.inner.field(self.centred(states), units)
        return field - (self._threshold if units is None else self._threshold[units])

    def energy(self, states: Float32[Tensor, "B D"]) -> Float32[Tensor, " B"]:
        """Of the centred states, and what the threshold adds."""
        centred = self.centred(states)
        return self.inner.energy(centred) + centred @ self._threshold

    def over(self, inner: Reservoir) -> "Centred":
        """The same mean about another reservoir."""
        other = copy(self)
        other.inner = inner
        return other

    def centred(
        self, states: Float32[Tensor, "*B _"], units: slice = slice(None)
    ) -> Float32[Tensor, "*B _"]:
        """States as the reservoir within sees them; one that is not known, 0, is at its mean.

        Args:
            states: of those units.
            units: which.
        """
        if not self._is_needed:
            return states
        mean = self.mean
        return (states - mean[units] * (states != 0)) * _scale(mean)

    @property
    def _threshold(self) -> Float32[Tensor, " D"]:
        mean = self.mean
        return -mean * _scale(mean) if self._is_needed else torch.zeros_like(mean)


def _scale(mean: Tensor) -> Tensor:
    """Makes centred patterns as long as those of -1 and +1."""
    return (1 - mean.square()).mean().rsqrt()


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
