"""Choose the class of stored states that a layout needs on the CPU."""

import numpy as np
import torch
from jaxtyping import UInt8

from supsup_core.states.bits import BitStates
from supsup_core.states.floats import FloatStates
from supsup_core.states.layout import StateLayout


def stored_states(
    layout: StateLayout, rows: UInt8[np.ndarray, "T R"], device: torch.device
) -> BitStates | FloatStates:
    """Make stored states from packed rows: BitStates if they have planes, else FloatStates.

    Args:
        layout: the layout of the packed rows.
        rows: (T, R) the packed rows, at least one.
        device: the device of the computations and of all returned tensors.
    """
    kind = BitStates if layout.planes else FloatStates
    return kind(layout, rows, device)
