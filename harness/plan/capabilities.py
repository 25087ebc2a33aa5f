"""Capabilities of a run's network, finder and engine, as plain values.

Checks and plans decide by these values and never by a name. So they need no change for a new
network, finder or engine.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Capabilities:
    """The capabilities of a run's network, finder and engine.

    Attributes:
        num_gains: number of gains of all masked tensors of the network.
        num_bits: number of bits of one state.
        num_activations: count of the values that a forward pass of one input keeps for the backward
            pass.
        normalises: whether the network's logits for an input depend on the whole batch.
        supports: names of the inference algorithms that the engine has.
        keeps_alone: whether a state is one keep plane per masked tensor, without floats.
            Distractors, reservoirs and shards need such states.
        bits_serve: whether the engine infers from packed bits, which can be split over shards.
        bfloat16_serves: whether the trainer of this network and finder can use bfloat16.
        order: earlier tasks that the finder needs: none ("any"), the first task ("after_first") or
            the previous task ("sequence").
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
