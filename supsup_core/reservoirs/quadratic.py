"""Reservoirs with a weight between every two units: four rules to store a pattern.

    E(s) = -1/2 s^T (Psi - diag Psi) s

What differs is how a pattern z changes Psi. How many each can hold says theory.py.

Shape letters: D units, B states, P patterns, U chosen units.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from supsup_core.arrays import check_shape


class Quadratic(ABC):
    """Weights between units; a rule says how to store.

    Args:
        dim: D.
        device: where the weights are.

    Attributes:
        weights: Psi, (D, D).
    """

    def __init__(self, dim: int, device: torch.device | None = None) -> None:
        self.dim, self.num_stored = dim, 0
        self.weights: Float32[Tensor, "D D"] = torch.zeros(dim, dim, device=device)

    @property
    def num_bytes(self) -> int:
        """Of the weights."""
        return self.weights.numel() * self.weights.element_size()

    def store(self, pattern: Float32[Tensor, " D"]) -> None:
        """Take one pattern in.

        Args:
            pattern: -1 and +1, or such numbers centred (variants.py).

        Raises:
            ValueError: another length than D.
        """
        check_shape("pattern", pattern.shape, (self.dim,), "D")
        self._change(pattern)
        self.num_stored += 1

    @abstractmethod
    def _change(self, pattern: Float32[Tensor, " D"]) -> None:
        """Change the weights for a pattern."""

    def field(
        self, states: Float32[Tensor, "B D"], units: Int64[Tensor, " U"] | None = None
    ) -> Float32[Tensor, "B _"]:
        """Psi s of some units, without what a unit says about itself."""
        if units is None:
            return states @ self.weights.t() - states * self.weights.diagonal()
        own = states[:, units] * self.weights.diagonal()[units]
        return states @ self.weights[units].t() - own

    def energy(self, states: Float32[Tensor, "B D"]) -> Float32[Tensor, " B"]:
        """-1/2 s^T Psi s, likewise."""
        return -0.5 * (states * self.field(states)).sum(dim=1)


class Hebb(Quadratic):
    """Psi += z z^T / D (Hopfield 1982)."""

    def _change(self, pattern: Float32[Tensor, " D"]) -> None:
        self.weights.addr_(pattern, pattern, alpha=1 / self.dim)


class Storkey(Quadratic):
    """Psi += (z z^T - I - z h^T - h z^T) / D with h = Psi z.

    As the authors of supermasks in superposition store theirs; Storkey 1997 leaves two units
    out of each h.
    """

    def _change(self, pattern: Float32[Tensor, " D"]) -> None:
        pulled, scale = self.weights @ pattern, 1 / self.dim
        self.weights.addr_(pattern, pattern - pulled, alpha=scale)
        self.weights.addr_(pulled, pattern, alpha=-scale)
        self.weights.diagonal().sub_(scale)


class Projection(Quadratic):
    """Psi is the projection onto what is stored: r r^T / r^T r is added, r = z - Psi z.

    Personnaz et al. 1986, one pattern at a time; a pattern within the span of those before
    it changes nothing.
    """

    # Squares of what is new in a pattern, of all D: less is rounding.
    _LEAST_NEW = 1e-4

    def _change(self, pattern: Float32[Tensor, " D"]) -> None:
        new = pattern - self.weights @ pattern
        new -= self.weights @ new  # once more, for the projection is rounded
        squares = float(new @ new)
        if squares > self._LEAST_NEW * self.dim:
            self.weights.addr_(new, new, alpha=1 / squares)


class Perceptron(Quadratic):
    """Every unit is a perceptron that learns its own bit from the others (Gardner 1988).

    A pattern that is stored is learnt alone, and may push older ones out; `rehearse` goes over
    patterns that are at hand until all are stable. The weights need not be symmetric, so the
    field need not go downhill.

    Args:
        dim: D.
        share: of sqrt(D / P), about the largest margin that P patterns leave: what
            z_i (Psi z)_i has to exceed, in norms of unit i's weights. A pattern then has room
            around it for as many wrong bits as the load allows.
        device: where the weights are.
    """

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
        """Learn patterns again, some at a time.

        Returns:
            whether all of them are stable, with the margin.
        """
        margin = self._margin(len(patterns))
        for _ in range(sweeps):
            if not sum(self._learn(some, margin) for some in patterns.split(together)):
                return True
        return False

    def _margin(self, num_patterns: int) -> float:
        return float(self._share * (self.dim / num_patterns) ** 0.5)

    def _learn(self, patterns: Float32[Tensor, "P D"], margin: float) -> int:
        """Change what is wrong once; how many bits of the patterns were."""
        wanted = patterns.sign()
        wrong = wanted * self.field(patterns) <= margin * self.weights.norm(dim=1)
        self.weights.addmm_((wrong * wanted).t(), patterns, alpha=1 / self.dim)
        self.weights.fill_diagonal_(0)
        return int(wrong.sum())
