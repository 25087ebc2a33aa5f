"""Capabilities of a run's network, finder and engine, as plain values.

Checks and plans use these values, and not the names of the network, finder and engine. So the
checks and plans stay the same if a new network, finder or engine is added.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Capabilities:
    """The capabilities of a run's network, finder and engine.

    Attributes:
        num_gains: number of gains of all masked tensors of the network.
        num_bits: number of bits of one state.
        num_activations: number of values that a forward pass of one input stores for the backward
            pass.
        normalises: whether the network normalises over a batch, so that the logits for an input
            also depend on the other inputs of the batch.
        supports: names of the inference algorithms that the engine has.
        keeps_alone: whether a task stores only bits: a state has no floats, and exactly one plane
            per masked tensor, in which a bit of 1 keeps the weight, and tasks train no weights.
            Distractors, reservoirs and actors.shards > 1 need such states.
        has_planes: whether a state has planes of bits. Shuffled copies of a state need them.
        bits_serve: whether the engine infers tasks from packed bits. actors.shards > 1 needs such
            an engine.
        bfloat16_serves: whether the trainer of this network and finder can use bfloat16.
        order: which task must be trained before another task is trained: none ("any"), the first
            task ("after_first") or the previous task ("sequence"). The finder and train.transfer
            decide this.
        transfers: whether first scores can be made from earlier masks (train.transfer).
        carries: whether a task needs data from earlier tasks that are not in their states.
        trains_weights: whether tasks train weights that all tasks share.
    """

    num_gains: int
    num_bits: int
    num_activations: int
    normalises: bool
    supports: frozenset[str]
    keeps_alone: bool
    has_planes: bool
    bits_serve: bool
    bfloat16_serves: bool
    order: Literal["any", "after_first", "sequence"]
    transfers: bool = True
    carries: bool = False
    trains_weights: bool = False
