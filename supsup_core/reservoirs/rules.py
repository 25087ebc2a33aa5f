"""The reservoirs that have a name: how one is made, and what is recalled from."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import torch

from supsup_core.names import RESERVOIR_RULES, load
from supsup_core.reservoirs.protocol import Reservoir
from supsup_core.reservoirs.quadratic import Hebb, Perceptron, Projection, Quadratic, Storkey
from supsup_core.reservoirs.random_features import RandomFeatures
from supsup_core.reservoirs.theory import capacity
from supsup_core.reservoirs.variants import Quantised

# Of random features, beta times D: of 5 to 12 and 1 to 3 the best at 20 patterns of 1024 units.
BETA_DIM = 5.0


@dataclass(frozen=True)
class Rule:
    """A kind of reservoir.

    Attributes:
        make: units and device -> an empty one.
        theory: what its capacity follows (theory.py); None where there is none.
        num_bits: its weights are rounded to so many to recall from; None: they are not.
        needs_centring: the mean of what is stored is taken off. To perceptrons it is what a
            threshold would be, and kernels compare whole states, which it moves together.
        floats_per_pair: what is held while it is filled, for every two units.
    """

    make: Callable[..., Reservoir]
    theory: str | None = None
    num_bits: int | None = None
    needs_centring: bool = True
    floats_per_pair: int = 1

    def capacity(self, dim: int) -> float | None:
        """Random patterns of D units that it can hold to the bit, by theory."""
        return None if self.theory is None or dim < 2 else capacity(self.theory, dim)

    def recalled_from(self, reservoir: Reservoir) -> Reservoir:
        """What is kept of a reservoir that is full."""
        if self.num_bits is None:
            return reservoir
        assert isinstance(reservoir, Quadratic)
        return Quantised(reservoir, self.num_bits)


def _random_features(dim: int, device: torch.device) -> RandomFeatures:
    # What is drawn takes twice the memory of a quadratic rule; what is kept, next to nothing,
    # and it holds next to nothing: D * D / 32 frequencies hold some patterns, and take D / 64
    # times as much memory.
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
    """Load the kind of reservoir of a name.

    Args:
        name: one of names.RESERVOIR_RULES.
    """
    found: Rule = load("rule", RESERVOIR_RULES, name)
    return found


def reservoir_bytes(rule: str, num_bits: int, block: int) -> int:
    """What a reservoir takes while it is filled with patterns in blocks.

    Args:
        rule: one of names.RESERVOIR_RULES.
        num_bits: of a pattern.
        block: of them held together, at most.
    """
    num_blocks = ceil(num_bits / block)
    return 4 * named_rule(rule).floats_per_pair * num_blocks * ceil(num_bits / num_blocks) ** 2
