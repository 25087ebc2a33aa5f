"""A reservoir for long masks: the mask is cut into blocks, and each block has its own reservoir.

With blocks of b bits, a mask of D bits needs D b weights instead of D^2. The blocks together can
hold only as many patterns as one reservoir of b units, because a pattern is recalled right only if
every block recalls its part right. So no block should be small.

Shape letters: D units, B states, P patterns, U chosen units.
"""

from collections.abc import Callable
from copy import copy
from itertools import pairwise
from math import ceil

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from supsup_core.reservoirs.protocol import Reservoir


def spans_of(dim: int, block: int) -> list[tuple[int, int]]:
    """Divide units into blocks.

    Args:
        dim: D, the number of units.
        block: the largest number of units of a block.

    Returns:
        (first, end) for each block: the index of its first unit, and the index after its last unit.

    Raises:
        ValueError: block < 1.
    """
    if block < 1:
        raise ValueError(f"block must be >= 1, got {block}: try block={dim}")
    # The blocks have equal sizes. A short last block would be the first block to fail, and then no
    # mask would be recalled right.
    number = ceil(dim / block)
    return list(pairwise(dim * i // number for i in range(number + 1)))


class Blocks:
    """A reservoir that consists of independent, smaller reservoirs. Each has a range of the units.

    Args:
        dim: D, the number of units.
        block: the largest number of units in one of the smaller reservoirs. Their numbers of units
            differ by 1 at most.
        make: a function that makes an empty reservoir. Its argument is the number of units.

    Attributes:
        parts: the smaller reservoirs, in the order of their units.
        spans: (first, end) for each part: the index of its first unit, and the index after its
            last unit.
    """

    def __init__(self, dim: int, block: int, make: Callable[[int], Reservoir]) -> None:
        self.dim, self.num_stored = dim, 0
        self.spans = spans_of(dim, block)
        self.parts = [make(end - first) for first, end in self.spans]

    @property
    def num_bytes(self) -> int:
        """Memory of all parts, in bytes."""
        return sum(part.num_bytes for part in self.parts)

    def replaced(self, change: Callable[[Reservoir], Reservoir]) -> "Blocks":
        """Return a copy in which each part is replaced by change(part)."""
        other = copy(self)
        other.parts = [change(part) for part in self.parts]
        return other

    def split(self, states: Float32[Tensor, "*B D"]) -> tuple[Float32[Tensor, "*B _"], ...]:
        """Split states along the axis of the units: one tensor per part."""
        sizes = [end - first for first, end in self.spans]
        parts: tuple[Tensor, ...] = states.split(sizes, dim=-1)
        return parts

    def store(self, pattern: Float32[Tensor, " D"]) -> None:
        """Store one pattern of -1 and +1. Each part stores the values of its own units."""
        for part, own in zip(self.parts, self.split(pattern), strict=True):
            part.store(own)
        self.num_stored += 1

    def store_all(self, patterns: Float32[Tensor, "P D"]) -> None:
        """Store patterns one by one, in their order."""
        for pattern in patterns:
            self.store(pattern)

    def field(
        self, states: Float32[Tensor, "B D"], units: Int64[Tensor, " U"] | None = None
    ) -> Float32[Tensor, "B _"]:
        """Compute the field of some or all units; see Reservoir.field."""
        places = list(zip(self.parts, self.split(states), strict=True))
        if units is None:
            return torch.cat([part.field(own) for part, own in places], dim=1)
        found = states.new_empty(len(states), len(units))
        for (part, own), (first, end) in zip(places, self.spans, strict=True):
            here = (first <= units) & (units < end)
            if here.any():
                found[:, here] = part.field(own, units[here] - first)
        return found

    def energy(self, states: Float32[Tensor, "B D"]) -> Float32[Tensor, " B"]:
        """Compute the energy of each state: the sum of the energies of all parts."""
        places = zip(self.parts, self.split(states), strict=True)
        return torch.stack([part.energy(own) for part, own in places]).sum(dim=0)
