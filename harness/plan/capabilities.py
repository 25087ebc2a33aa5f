"""What a run's network, finder and engine can do, as plain values: checks and plans ask these."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Capabilities:
    """What the parts of a run can do.

    Attributes:
        num_gains: gains of all masked tensors of the network.
        num_bits: bits of one state.
        num_activations: numbers that a forward pass of one input keeps for the backward pass.
        normalises: whether the network's logits depend on the whole batch.
        supports: algorithms that the engine has.
        keeps_alone: whether a state is one plane of keep bits for each tensor, and no floats.
        bits_serve: whether packed bits infer, which several actors can hold in parts.
        bfloat16_serves: whether the trainer of this network and finder takes bfloat16.
        order: what of other tasks the finder needs.
    """

    num_gains: int
    num_bits: int
    num_activations: int
    normalises: bool
    supports: frozenset[str]
    keeps_alone: bool
    bits_serve: bool
    bfloat16_serves: bool
    order: Literal["any", "after_first", "sequence"]
