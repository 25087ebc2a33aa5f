"""Reservoirs with one weight per pair of units, and four rules for storing a pattern.

The weights are the matrix Psi. The energy of a state s is

    E(s) = -1/2 s^T (Psi - diag Psi) s

A rule says how storing a pattern z changes Psi. theory.py gives the capacity of each rule.

Shape letters: D units, B states, P patterns, U chosen units.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from supsup_core.arrays import check_shape


class Quadratic(ABC):
    """The base class of reservoirs with one weight per pair of units.

    Each subclass has its own rule for storing a pattern.

    Args:
        dim: D, the number of units.
        device: the device of the weights.

    Attributes:
        weights: (D, D) the matrix of weights, Psi.
    """

    def __init__(self, dim: int, device: torch.device | None = None) -> None:
        self.dim, self.num_stored = dim, 0
        self.weights: Float32[Tensor, "D D"] = torch.zeros(dim, dim, device=device)

    @property
    def num_bytes(self) -> int:
        """Memory of the weights, in bytes."""
        return self.weights.numel() * self.weights.element_size()

    def store(self, pattern: Float32[Tensor, " D"]) -> None:
        """Store one pattern.

        Args:
            pattern: (D,) -1 or +1 per unit, or such a pattern minus a mean (see Centred).

        Raises:
            ValueError: the pattern does not have D units.
        """
        check_shape("pattern", pattern.shape, (self.dim,), "D")
        self._change(pattern)
        self.num_stored += 1

    @abstractmethod
    def _change(self, pattern: Float32[Tensor, " D"]) -> None:
        """Change the weights so that they store the pattern."""

    def field(
        self, states: Float32[Tensor, "B D"], units: Int64[Tensor, " U"] | None = None
    ) -> Float32[Tensor, "B _"]:
        """Compute the field of some or all units; see Reservoir.field.

        For a state s, the field of all units is (Psi - diag Psi) s. Psi is the matrix of weights.
        """
        if units is None:
            return states @ self.weights.t() - states * self.weights.diagonal()
        own = states[:, units] * self.weights.diagonal()[units]
        return states @ self.weights[units].t() - own

    def energy(self, states: Float32[Tensor, "B D"]) -> Float32[Tensor, " B"]:
        """Compute the energy -1/2 s^T (Psi - diag Psi) s of each state s.

        Psi is the matrix of weights.
        """
        return -0.5 * (states * self.field(states)).sum(dim=1)


class Hebb(Quadratic):
    """Hebb's rule: Psi += z z^T / D (Hopfield 1982).

    z is the new pattern, D the number of units and Psi the weights.
    """

    def _change(self, pattern: Float32[Tensor, " D"]) -> None:
        self.weights.addr_(pattern, pattern, alpha=1 / self.dim)


class Storkey(Quadratic):
    """Storkey's rule: Psi += (z z^T - I - z h^T - h z^T) / D with h = Psi z.

    z is the new pattern, D the number of units and Psi the weights. The authors of supermasks in
    superposition store their masks with this formula. In Storkey 1997, two units are left out of
    the sums in h.
    """

    def _change(self, pattern: Float32[Tensor, " D"]) -> None:
        pulled, scale = self.weights @ pattern, 1 / self.dim
        self.weights.addr_(pattern, pattern - pulled, alpha=scale)
        self.weights.addr_(pulled, pattern, alpha=-scale)
        self.weights.diagonal().sub_(scale)


class Projection(Quadratic):
    """Projection rule: Psi += r r^T / r^T r with r = z - Psi z.

    z is the new pattern and Psi the weights. After each pattern, Psi is the projection onto the
    span of the stored patterns. A pattern in the span of earlier patterns changes nothing.

    Source: Personnaz et al. 1986, here for one pattern at a time.
    """

    # A pattern counts as new if r^T r / D is above this value. Smaller values are rounding errors.
    _LEAST_NEW = 1e-4

    def _change(self, pattern: Float32[Tensor, " D"]) -> None:
        new = pattern - self.weights @ pattern
        new -= self.weights @ new  # a second time, because the first result has rounding errors
        squares = float(new @ new)
        if squares > self._LEAST_NEW * self.dim:
            self.weights.addr_(new, new, alpha=1 / squares)


class Perceptron(Quadratic):
    """Perceptron rule: every unit learns its own bit from the other units (Gardner 1988).

    Bit i of a pattern z is stable if z_i (Psi z)_i, divided by the norm of unit i's weights, is
    above a margin. `store` learns one pattern only, so older patterns may be lost. `rehearse`
    learns all given patterns again until all of their bits are stable, because Gardner's theory
    assumes repeated learning. The weights Psi may be asymmetric. Then a unit that follows its field
    may raise the energy.

    Args:
        dim: D, the number of units.
        share: for P patterns, the margin is share * sqrt(D / P).
        device: the device of the weights.
    """

    # The margin depends on P, because P patterns allow a margin of about sqrt(D / P) at most. A
    # smaller margin leaves no room for wrong bits in a cue. A larger margin is never reached.

    _MOST_STEPS = 100

    def __init__(self, dim: int, share: float = 0.5, device: torch.device | None = None) -> None:
        super().__init__(dim, device)
        self._share = share

    def _change(self, pattern: Float32[Tensor, " D"]) -> None:
        margin = self._margin(self.num_stored + 1)
        for _ in range(self._MOST_STEPS):
            if not self._learn(pattern[None], margin):
                return

    def rehearse(self, patterns: Float32[Tensor, "P D"], sweeps: int, together: int = 32) -> bool:
        """Learn patterns again until all of their bits are stable.

        Args:
            patterns: (P, D) the patterns, -1 or +1 per unit.
            sweeps: the largest number of passes over the patterns.
            together: number of patterns that are learned in one change of the weights.

        Returns:
            True if the last pass found all bits stable. False if `sweeps` passes were not enough.
        """
        margin = self._margin(len(patterns))
        for _ in range(sweeps):
            if not sum(self._learn(some, margin) for some in patterns.split(together)):
                return True
        return False

    def _margin(self, num_patterns: int) -> float:
        return float(self._share * (self.dim / num_patterns) ** 0.5)

    def _learn(self, patterns: Float32[Tensor, "P D"], margin: float) -> int:
        """Change the weights once for all unstable bits, and return the number of these bits."""
        wanted = patterns.sign()
        wrong = wanted * self.field(patterns) <= margin * self.weights.norm(dim=1)
        self.weights.addmm_((wrong * wanted).t(), patterns, alpha=1 / self.dim)
        self.weights.fill_diagonal_(0)
        return int(wrong.sum())
