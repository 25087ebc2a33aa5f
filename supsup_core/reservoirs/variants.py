"""Reservoirs made from other reservoirs: one subtracts the mean, and one rounds the weights.

Shape letters: D units, B states, P patterns, U chosen units.
"""

from copy import copy

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from supsup_core.arrays import check_shape
from supsup_core.reservoirs.protocol import Reservoir
from supsup_core.reservoirs.quadratic import Quadratic, rounded


class Centred:
    """A reservoir that subtracts the mean of the stored patterns from every pattern and state.

    The mean has one value per unit, and is updated with each stored pattern. This subtraction is
    called centring. Another reservoir, `inner`, stores the centred patterns.

    Without centring, recall gives the mean if the patterns have something in common: if the
    fraction of ones is not one half, or if some units are one in most patterns (Amit, Gutfreund &
    Sompolinsky 1987). Trained masks have much in common. Hebb's rule recalled 1 of 50 masks without
    centring, and all 50 with centring (analysis/records/2026-11-25-reservoirs.md). After centring,
    the values for +1 and -1 have different magnitudes. So a threshold half-way between the two
    values is subtracted from the field (Tsodyks & Feigelman 1988).

    Args:
        inner: the reservoir that stores the centred patterns.
        density: the fraction of +1 that is expected in a pattern, in (0, 1). It gives the mean
            before the first pattern.
        device: the device of the mean.
        is_needed: whether to subtract the mean. If False, the mean is still updated, because a
            search starts from the mean.
    """

    # In the mean, the expected density counts as this number of patterns.
    _PRIOR = 10

    def __init__(
        self,
        inner: Reservoir,
        density: float = 0.5,
        device: torch.device | None = None,
        is_needed: bool = True,
    ) -> None:
        if not 0 < density < 1:
            raise ValueError(f"density must be in (0, 1), got {density}: try density=0.5")
        self.inner, self.dim, self.num_stored = inner, inner.dim, 0
        self._is_needed = is_needed
        self._expected = self._PRIOR * (2 * density - 1)
        # The sum is a whole number, so it does not depend on how many patterns are added at once.
        self._sum = torch.zeros(inner.dim, device=device)

    @property
    def num_bytes(self) -> int:
        """Memory of the inner reservoir and of the mean, in bytes."""
        return self.inner.num_bytes + self._sum.numel() * self._sum.element_size()

    @property
    def mean(self) -> Float32[Tensor, " D"]:
        """(D,) the mean of each unit, from the expected density and the patterns so far."""
        return (self._sum + self._expected) / (self._PRIOR + self.num_stored)

    def store(self, pattern: Float32[Tensor, " D"]) -> None:
        """Store one pattern of -1 and +1.

        Raises:
            ValueError: the pattern does not have D units.
        """
        check_shape("pattern", pattern.shape, (self.dim,), "D")
        self._sum += pattern
        self.num_stored += 1
        self.inner.store(self.centred(pattern))

    def store_all(self, patterns: Float32[Tensor, "P D"]) -> None:
        """Store patterns of -1 and +1 in their order.

        Before a pattern is stored, the mean is subtracted from it. This is the mean of the earlier
        patterns and the pattern itself.
        """
        check_shape("patterns", patterns.shape, (len(patterns), self.dim), "P D")
        sums = self._sum + patterns.cumsum(dim=0)
        counts = torch.arange(1, len(patterns) + 1, device=patterns.device) + self.num_stored
        if len(patterns):
            self._sum = sums[-1].clone()
        self.num_stored += len(patterns)
        if self._is_needed:
            means = (sums + self._expected) / (self._PRIOR + counts)[:, None]
            patterns = (patterns - means * (patterns != 0)) * _scale(means)
        self.inner.store_all(patterns)

    def field(
        self, states: Float32[Tensor, "B D"], units: Int64[Tensor, " U"] | None = None
    ) -> Float32[Tensor, "B _"]:
        """Compute the field of some or all units; see Reservoir.field.

        The field is the inner reservoir's field at the centred states, minus a threshold per unit.
        """
        field = self.inner.field(self.centred(states), units)
        return field - (self._threshold if units is None else self._threshold[units])

    def energy(self, states: Float32[Tensor, "B D"]) -> Float32[Tensor, " B"]:
        """Compute the energy of each state.

        The energy is the inner reservoir's energy of the centred state, plus the product of the
        centred state and the thresholds.
        """
        centred = self.centred(states)
        return self.inner.energy(centred) + centred @ self._threshold

    def over(self, inner: Reservoir) -> "Centred":
        """Return a copy of this object with the same mean, but with another inner reservoir."""
        other = copy(self)
        other.inner = inner
        return other

    def centred(
        self, states: Float32[Tensor, "*B _"], units: slice = slice(None)
    ) -> Float32[Tensor, "*B _"]:
        """Subtract the mean from states, and scale them, for the inner reservoir.

        Unknown units keep the value 0. If centring is off, the states stay unchanged.

        Args:
            states: the values of the chosen units: -1, +1, or 0 for unknown.
            units: the chosen units; by default all units.
        """
        if not self._is_needed:
            return states
        mean = self.mean
        return (states - mean[units] * (states != 0)) * _scale(mean)

    @property
    def _threshold(self) -> Float32[Tensor, " D"]:
        mean = self.mean
        return -mean * _scale(mean) if self._is_needed else torch.zeros_like(mean)


def _scale(mean: Float32[Tensor, "*P D"]) -> Float32[Tensor, "*P 1"]:
    """Compute the factor that scales centred patterns to the norm of patterns of -1 and +1."""
    return (1 - mean.square()).mean(dim=-1, keepdim=True).rsqrt()


class Quantised(Quadratic):
    """A reservoir for recall only, with weights that are rounded to a few bits.

    The rounded weights are kept as floats. All weights of a unit have the same scale, which is
    computed from the unit's largest weight.

    Args:
        inner: the reservoir whose weights are rounded.
        num_bits: number of bits per weight, 2 to 8.
    """

    def __init__(self, inner: Quadratic, num_bits: int) -> None:
        self.dim, self.num_stored, self._num_bits = inner.dim, inner.num_stored, num_bits
        self.weights = rounded(inner.weights, num_bits)

    @property
    def num_bytes(self) -> int:
        """Memory in bytes if the weights were packed, with one float32 scale per unit."""
        return -(-self.dim * self.dim * self._num_bits // 8) + 4 * self.dim

    def _change(self, pattern: Float32[Tensor, " D"]) -> None:
        raise NotImplementedError("Quantised cannot store patterns: store them before rounding")
