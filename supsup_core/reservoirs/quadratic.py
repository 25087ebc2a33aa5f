"""Reservoirs with one weight per pair of units, and four rules for storing a pattern.

The weights are the matrix Psi. The energy of a state s is

    E(s) = -1/2 s^T (Psi - diag Psi) s

A rule says how storing a pattern z changes Psi. theory.py gives the capacity of each rule.

Shape letters: D units, B states, P patterns, U chosen units, N reservoirs.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from supsup_core.arrays import check_shape

# Number of patterns that are stored in the same matrix products. The products read and write all
# weights once for these patterns together.
PATTERNS_TOGETHER = 32


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

    def store_all(self, patterns: Float32[Tensor, "P D"]) -> None:
        """Store patterns in their order."""
        for pattern in patterns:
            self.store(pattern)

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


class Additive(Quadratic):
    """The base class of rules that add products of patterns to the weights.

    Such a rule can store patterns in several reservoirs at once, with the same matrix products.
    """

    @classmethod
    @abstractmethod
    def add(
        cls,
        weights: Float32[Tensor, "N D D"],
        patterns: Float32[Tensor, "N D P"],
        sizes: Float32[Tensor, "N 1 1"],
    ) -> None:
        """Store P patterns in each of N reservoirs, in the order of the patterns.

        Args:
            weights: (N, D, D) the weights, which are changed in place.
            patterns: (N, D, P) the patterns of each reservoir.
            sizes: (N, 1, 1) the number of units of each reservoir, at most D. The other units have
                the value 0 in all patterns. Only the weight of such a unit with itself may change.
        """

    def store_all(self, patterns: Float32[Tensor, "P D"]) -> None:
        """Store patterns in their order. Each matrix product handles several patterns."""
        check_shape("patterns", patterns.shape, (len(patterns), self.dim), "P D")
        for some in patterns.split(PATTERNS_TOGETHER):
            self._add(some)
        self.num_stored += len(patterns)

    def _change(self, pattern: Float32[Tensor, " D"]) -> None:
        self._add(pattern[None])

    def _add(self, patterns: Float32[Tensor, "P D"]) -> None:
        sizes = torch.full((1, 1, 1), float(self.dim), device=patterns.device)
        self.add(self.weights[None], patterns.t()[None], sizes)


class Hebb(Additive):
    """Hebb's rule: Psi += z z^T / D (Hopfield 1982).

    z is the new pattern, D the number of units and Psi the weights.
    """

    @classmethod
    def add(
        cls,
        weights: Float32[Tensor, "N D D"],
        patterns: Float32[Tensor, "N D P"],
        sizes: Float32[Tensor, "N 1 1"],
    ) -> None:
        """Store patterns in N reservoirs; see Additive.add."""
        weights.baddbmm_(patterns, (patterns / sizes).transpose(1, 2))


class Storkey(Additive):
    """Storkey's rule: Psi += (z z^T - I - z h^T - h z^T) / D with h = Psi z.

    z is the new pattern, D the number of units and Psi the weights. The authors of supermasks in
    superposition store their masks with this formula. In Storkey 1997, two units are left out of
    the sums in h.
    """

    @classmethod
    def add(
        cls,
        weights: Float32[Tensor, "N D D"],
        patterns: Float32[Tensor, "N D P"],
        sizes: Float32[Tensor, "N 1 1"],
    ) -> None:
        """Store patterns in N reservoirs; see Additive.add."""
        pulled, scale, number = weights @ patterns, 1 / sizes, patterns.shape[2]
        # h of a pattern must contain the changes of Psi by the patterns before it.
        for i in range(1, number):
            new, earlier, h = patterns[:, :, i : i + 1], patterns[:, :, :i], pulled[:, :, :i]
            alike = earlier.transpose(1, 2) @ new
            change = (earlier - h) @ alike - earlier @ (h.transpose(1, 2) @ new) - i * new
            pulled[:, :, i : i + 1] += scale * change
        left = torch.cat([patterns, pulled], dim=2)
        right = torch.cat([patterns - pulled, -patterns], dim=2) * scale
        weights.baddbmm_(left, right.transpose(1, 2))
        weights.diagonal(dim1=1, dim2=2).sub_(number * scale[:, :, 0])


class Projection(Additive):
    """The projection rule: Psi += r r^T / r^T r with r = z - Psi z.

    z is the new pattern and Psi the weights. After each pattern, Psi is the projection onto the
    span of the stored patterns. A pattern in the span of earlier patterns changes nothing.

    Source: Personnaz et al. 1986, here for one pattern at a time.
    """

    # A pattern counts as new if r^T r / D is above this value. Smaller values are rounding errors.
    _LEAST_NEW = 1e-4

    @classmethod
    def add(
        cls,
        weights: Float32[Tensor, "N D D"],
        patterns: Float32[Tensor, "N D P"],
        sizes: Float32[Tensor, "N 1 1"],
    ) -> None:
        """Store patterns in N reservoirs; see Additive.add."""
        new = patterns - weights @ patterns
        new -= weights @ new  # a second time, because the first result has rounding errors
        # r of a pattern must also be orthogonal to r of the patterns before it. So these vectors
        # are computed one after the other, and divided by their norms.
        units = torch.zeros_like(new)
        for i in range(new.shape[2]):
            r, earlier = new[:, :, i : i + 1], units[:, :, :i]
            for _ in range(2 if i else 0):
                r = r - earlier @ (earlier.transpose(1, 2) @ r)
            squares = r.square().sum(dim=1, keepdim=True)
            # With `where`, no vector is divided by a small number, and the host does not need to
            # wait for the device to know whether r is new.
            is_new = squares > cls._LEAST_NEW * sizes
            norms = torch.where(is_new, squares, torch.ones_like(squares)).sqrt()
            units[:, :, i : i + 1] = torch.where(is_new, r / norms, torch.zeros_like(r))
        weights.baddbmm_(units, units.transpose(1, 2))


class Perceptron(Quadratic):
    """The perceptron rule: every unit learns its own bit from the other units (Gardner 1988).

    Bit i of a pattern z is stable if z_i (Psi z)_i, divided by the norm of unit i's weights, is
    above a margin. `store` learns one pattern only, so older patterns may be lost. `rehearse`
    learns all given patterns again until all of their bits are stable, because Gardner's theory
    assumes repeated learning. The weights Psi may be asymmetric. If they are, the energy may rise
    when a unit takes the sign of its field.

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


def rounded(weights: Float32[Tensor, "*N D D"], num_bits: int) -> Float32[Tensor, "*N D D"]:
    """Round weights to a few bits. The weights of a unit with itself become 0.

    Args:
        weights: the weights of one or more reservoirs.
        num_bits: number of bits per weight, 2 to 8.

    Returns:
        The rounded weights as floats. All weights of a unit are whole multiples of the same number,
        which is computed from the unit's largest weight.

    Raises:
        ValueError: num_bits is not in [2, 8].
    """
    if not 2 <= num_bits <= 8:
        raise ValueError(f"num_bits must be in [2, 8], got {num_bits}: try num_bits=8")
    weights = weights.clone()
    weights.diagonal(dim1=-2, dim2=-1).zero_()
    largest = 2 ** (num_bits - 1) - 1
    worth = weights.abs().amax(dim=-1, keepdim=True).clamp_min(1e-30) / largest
    found: Tensor = (weights / worth).round() * worth
    return found
