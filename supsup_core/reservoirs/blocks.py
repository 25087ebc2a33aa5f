"""A reservoir for masks that are longer than any reservoir should be: one for every block of bits.

D bits in blocks of b take D b weights instead of D^2, and hold as many patterns as b units do.
A pattern comes back whole only where every block's part does, so that no block should be small.

Shape letters: D units, B states, U chosen units.
"""

from collections.abc import Callable
from copy import copy
from itertools import pairwise
from math import ceil

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from supsup_core.reservoirs.protocol import Reservoir


class Blocks:
    """Independent reservoirs over consecutive units.

    Args:
        dim: D.
        block: units of each at most; all have as many, or one fewer.
        make: units -> an empty reservoir.

    Attributes:
        parts: the reservoirs.
    """

    def __init__(self, dim: int, block: int, make: Callable[[int], Reservoir]) -> None:
        if block < 1:
            raise ValueError(f"block must be >= 1, got {block}")
        self.dim, self.num_stored = dim, 0
        num_parts = ceil(dim / block)
        self._bounds = [dim * part // num_parts for part in range(num_parts + 1)]
        self.parts = [make(end - first) for first, end in self.spans]

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First unit and end of each part."""
        return list(pairwise(self._bounds))

    @property
    def num_bytes(self) -> int:
        """Of all parts."""
        return sum(part.num_bytes for part in self.parts)

    def replaced(self, change: Callable[[Reservoir], Reservoir]) -> "Blocks":
        """The same units with other reservoirs: what `change` makes of each."""
        other = copy(self)
        other.parts = [change(part) for part in self.parts]
        return other

    def split(self, states: Float32[Tensor, "*B D"]) -> tuple[Float32[Tensor, "*B _"], ...]:
        """Each part's units."""
        sizes = [end - first for first, end in self.spans]
        parts: tuple[Tensor, ...] = states.split(sizes, dim=-1)
        return parts

    def store(self, pattern: Float32[Tensor, " D"]) -> None:
        """Take one pattern in."""
        for part, own in zip(self.parts, self.split(pattern), strict=True):
            part.store(own)
        self.num_stored += 1

    def field(
        self, states: Float32[Tensor, "B D"], units: Int64[Tensor, " U"] | None = None
    ) -> Float32[Tensor, "B _"]:
        """Of each unit by the part that it belongs to."""
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
        """Of all parts together."""
        places = zip(self.parts, self.split(states), strict=True)
        return torch.stack([part.energy(own) for part, own in places]).sum(dim=0)
