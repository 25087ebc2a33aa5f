"""The kinds of reservoirs that a configuration can name, with the settings of each kind."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import torch

from supsup_core.names import RESERVOIR_RULES, load
from supsup_core.reservoirs.blocks import Blocks
from supsup_core.reservoirs.protocol import Reservoir
from supsup_core.reservoirs.quadratic import (
    Additive,
    Hebb,
    Perceptron,
    Projection,
    Quadratic,
    Storkey,
)
from supsup_core.reservoirs.random_features import RandomFeatures
from supsup_core.reservoirs.stacked import StackedBlocks
from supsup_core.reservoirs.theory import capacity
from supsup_core.reservoirs.variants import Quantised

# For random features, the product of beta and the number of units D. The values 1 to 3 and 5 to 12
# were tried. For 20 patterns of 1024 units, 5 was the best value.
BETA_DIM = 5.0
# StackedBlocks calls only the method `add` of a rule. A rule that overrides one of these methods
# needs a reservoir per block.
_PLAIN = ("store", "store_all", "_change", "_add", "field", "energy")


@dataclass(frozen=True)
class Rule:
    """A kind of reservoir.

    Attributes:
        make: a function that makes an empty reservoir. Its arguments are the number of units and
            a device.
        theory: the name of the rule's capacity in theory.py. None if theory.py has no capacity for
            this kind.
        num_bits: number of bits per weight in recall. None if the weights are not rounded.
        needs_centring: whether the mean of the stored patterns is subtracted before storing.
        floats_per_pair: while patterns are stored, the reservoir takes this many float32 values per
            pair of units.
    """

    # The mean is not subtracted for perceptrons, because they need the mean as a threshold: a test
    # of sparse patterns fails without it. It is not subtracted for random features either, because
    # their kernels use distances between states, which do not change if all states are shifted.

    make: Callable[..., Reservoir]
    theory: str | None = None
    num_bits: int | None = None
    needs_centring: bool = True
    floats_per_pair: int = 1

    def capacity(self, dim: int) -> float | None:
        """Compute how many random patterns of `dim` units the rule can hold without a wrong bit.

        Returns:
            The number of patterns, from theory.py. None if theory.py has no capacity for this
            kind, or if `dim` is below 2.
        """
        return None if self.theory is None or dim < 2 else capacity(self.theory, dim)

    def blocks(self, dim: int, block: int, device: torch.device) -> Blocks | StackedBlocks:
        """Make an empty reservoir for long masks, which is divided into blocks.

        Args:
            dim: number of units.
            block: the largest number of units of a block.
            device: the device of the reservoir.
        """
        if isinstance(self.make, type) and issubclass(self.make, Additive):
            own = (getattr(self.make, name) for name in _PLAIN)
            if all(one is getattr(Additive, name) for one, name in zip(own, _PLAIN, strict=True)):
                return StackedBlocks(dim, block, self.make, device)
        return Blocks(dim, block, lambda size: self.make(size, device))

    def recalled_from(self, reservoir: Reservoir) -> Reservoir:
        """Return the reservoir to use in recall.

        If `num_bits` is set, this is a copy with rounded weights. Otherwise it is the reservoir
        itself.
        """
        if self.num_bits is None:
            return reservoir
        if isinstance(reservoir, StackedBlocks):
            return reservoir.rounded(self.num_bits)
        if isinstance(reservoir, Blocks):
            return reservoir.replaced(self.recalled_from)
        assert isinstance(reservoir, Quadratic)
        return Quantised(reservoir, self.num_bits)


def _random_features(dim: int, device: torch.device) -> RandomFeatures:
    # For 2 D frequencies, Omega takes twice the memory of a quadratic rule's weights, and the sums
    # take almost none. With 2 D frequencies, the reservoir can hold almost no pattern. With
    # D * D / 32 frequencies, it could hold some patterns, but Omega would take D / 64 times as much
    # memory.
    generator = torch.Generator().manual_seed(1)
    return RandomFeatures(dim, 2 * dim, BETA_DIM / dim, generator, device)


HEBB = Rule(Hebb, "hebb_exact")
STORKEY = Rule(Storkey, "storkey")
PROJECTION = Rule(Projection, "projection")
PROJECTION_8BITS = Rule(Projection, "projection", num_bits=8)
PROJECTION_4BITS = Rule(Projection, "projection", num_bits=4)
PERCEPTRON = Rule(
    lambda dim, device: Perceptron(dim, device=device), "perceptron", needs_centring=False
)
RANDOM_FEATURES = Rule(_random_features, needs_centring=False, floats_per_pair=2)


def named_rule(name: str) -> Rule:
    """Load a kind of reservoir by its name.

    Args:
        name: a key of names.RESERVOIR_RULES.
    """
    found: Rule = load("rule", RESERVOIR_RULES, name)
    return found


def reservoir_bytes(rule: str, num_bits: int, block: int) -> int:
    """Compute how many bytes of memory a reservoir takes while patterns are stored.

    The bits of a pattern are divided into blocks, and each block has a reservoir of its own.

    Args:
        rule: a key of names.RESERVOIR_RULES.
        num_bits: number of bits of a pattern.
        block: the largest number of bits in one block.
    """
    num_blocks = ceil(num_bits / block)
    return 4 * named_rule(rule).floats_per_pair * num_blocks * ceil(num_bits / num_blocks) ** 2
