"""Choose the class of stored states that a layout needs on the CPU."""

from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from supsup_core.states.bits import BitStates
from supsup_core.states.floats import FloatStates
from supsup_core.states.layout import StateLayout


# The type is Any, as in engines/choose.py: Python cannot check a class against a protocol that has
# attributes.
def states_type(layout: StateLayout) -> type[Any]:
    """Return BitStates if the states of a layout have planes of bits, otherwise FloatStates."""
    return BitStates if layout.planes else FloatStates


def stored_states(
    layout: StateLayout, rows: UInt8[np.ndarray, "T R"], device: torch.device
) -> BitStates | FloatStates:
    """Make stored states from packed rows.

    Args:
        layout: the layout of the packed rows.
        rows: (T, R) the packed rows, at least one.
        device: the device of the computations and of all returned tensors.
    """
    found: BitStates | FloatStates = states_type(layout)(layout, rows, device)
    return found
