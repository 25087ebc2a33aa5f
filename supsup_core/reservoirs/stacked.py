"""Blocks of a reservoir as one tensor: all blocks store and recall in the same matrix products.

blocks.py has a simpler form, with one reservoir per block. A long mask has hundreds of blocks, and
a GPU takes longer to start the kernels of each block than to run them. Only the subclasses of
Additive (see quadratic.py) can use this form.

Blocks have D // N or D // N + 1 units. In the tensor, each smaller block has one additional unit.
Its value is always 0, so it changes no other unit.

Shape letters: D units, N blocks, W units of the widest block, B states, P patterns, U chosen units.
"""

from copy import copy
from math import ceil

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from supsup_core.arrays import check_shape
from supsup_core.reservoirs.blocks import spans_of
from supsup_core.reservoirs.quadratic import PATTERNS_TOGETHER, Additive, rounded


class StackedBlocks:
    """A reservoir that consists of independent, smaller reservoirs with the same rule; see Blocks.

    Args:
        dim: D, the number of units.
        block: the largest number of units in one of the smaller reservoirs. Their numbers of units
            differ by 1 at most.
        rule: the rule of all smaller reservoirs.
        device: the device of the weights.

    Attributes:
        weights: (N, W, W) the weights of each block.
    """

    def __init__(
        self, dim: int, block: int, rule: type[Additive], device: torch.device | None = None
    ) -> None:
        self.dim, self.num_stored, self._rule = dim, 0, rule
        self.spans = spans_of(dim, block)
        self._num_bits: int | None = None
        sizes = torch.tensor([end - first for first, end in self.spans])
        number, widest = len(sizes), int(sizes.max())
        # For each unit, its block and its place in the block.
        of = torch.arange(number).repeat_interleave(sizes)
        firsts = torch.tensor([first for first, _ in self.spans])
        self._block, self._place = (t.to(device) for t in (of, torch.arange(dim) - firsts[of]))
        self._flat = None if number * widest == dim else widest * self._block + self._place
        self._sizes = sizes[:, None, None].float().to(device)
        self.weights: Float32[Tensor, "N W W"] = torch.zeros(number, widest, widest, device=device)

    @property
    def num_bytes(self) -> int:
        """Memory of all blocks in bytes, without the units that are added to smaller blocks.

        If the weights are rounded, the number is for packed weights and one float32 scale per unit.
        """
        sizes = [end - first for first, end in self.spans]
        if self._num_bits is None:
            return sum(4 * size**2 for size in sizes)
        return sum(ceil(size**2 * self._num_bits / 8) + 4 * size for size in sizes)

    def rounded(self, num_bits: int) -> "StackedBlocks":
        """Return a copy for recall only, with weights of `num_bits` bits; see Quantised."""
        other = copy(self)
        other.weights, other._num_bits = rounded(self.weights, num_bits), num_bits
        return other

    def store(self, pattern: Float32[Tensor, " D"]) -> None:
        """Store one pattern of -1 and +1. Each block stores the values of its own units."""
        check_shape("pattern", pattern.shape, (self.dim,), "D")
        self.store_all(pattern[None])

    def store_all(self, patterns: Float32[Tensor, "P D"]) -> None:
        """Store patterns in their order, several of them in the same matrix products."""
        check_shape("patterns", patterns.shape, (len(patterns), self.dim), "P D")
        assert self._num_bits is None, "store patterns before the weights are rounded"
        for some in patterns.split(PATTERNS_TOGETHER):
            self._rule.add(self.weights, self._in_blocks(some).transpose(1, 2), self._sizes)
        self.num_stored += len(patterns)

    def field(
        self, states: Float32[Tensor, "B D"], units: Int64[Tensor, " U"] | None = None
    ) -> Float32[Tensor, "B _"]:
        """Compute the field of some or all units; see Reservoir.field."""
        inside = self._in_blocks(states)
        diagonal = self.weights.diagonal(dim1=1, dim2=2)
        if units is None:
            found = inside @ self.weights.transpose(1, 2) - inside * diagonal[:, None]
            flat: Tensor = found.transpose(0, 1).flatten(1)
            return flat if self._flat is None else flat.index_select(1, self._flat)
        block, place = self._block[units], self._place[units]
        own = states[:, units] * diagonal[block, place]
        pulled: Tensor = torch.einsum("uw,ubw->bu", self.weights[block, place], inside[block])
        return pulled - own

    def energy(self, states: Float32[Tensor, "B D"]) -> Float32[Tensor, " B"]:
        """Compute the energy of each state: the sum of the energies of all blocks."""
        return -0.5 * (states * self.field(states)).sum(dim=1)

    def _in_blocks(self, states: Float32[Tensor, "B D"]) -> Float32[Tensor, "N B W"]:
        """Divide states into blocks. Units that are added to smaller blocks get the value 0."""
        number, widest = self.weights.shape[:2]
        flat = states
        if self._flat is not None:
            flat = states.new_zeros((len(states), number * widest))
            flat = flat.index_copy(1, self._flat, states)
        inside: Tensor = flat.unflatten(1, (number, widest)).transpose(0, 1)
        return inside
