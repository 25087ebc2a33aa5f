"""Choose the engine: the first of names.ENGINES that supports the network, states and device."""

from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from supsup_core import names
from supsup_core.engines.protocol import Engine
from supsup_core.networks.protocol import Network, Weights
from supsup_core.states.layout import StateLayout
from supsup_core.states.protocol import PackedStates


# The return type is Any instead of Engine: at run time, Python cannot check a class against a
# protocol that has attributes.
def engine_type(
    network: Network, layout: StateLayout, device: torch.device, *, trained: bool = False
) -> type[Any]:
    """Return the first class of names.ENGINES that supports a network, a layout and a device.

    Args:
        network: the fixed network.
        layout: the layout of the stored states.
        device: the device that computes the inference.
        trained: whether the weights are trained, and so are not those that the network draws.
    """
    for name in names.ENGINES:
        kind: type[Any] = names.load("engine", names.ENGINES, name)
        if kind.fits(network, layout, device) and not (trained and kind.needs_drawn_weights):
            return kind
    raise AssertionError("names.ENGINES must end with an engine that supports every network")


def states_for(
    network: Network,
    layout: StateLayout,
    rows: UInt8[np.ndarray, "T R"],
    device: torch.device,
    *,
    trained: bool = False,
) -> PackedStates:
    """Make stored states of the class that the engine for a network and a device needs.

    Args:
        network: the fixed network.
        layout: the layout of the packed rows.
        rows: (T, R) the packed rows, at least one.
        device: the device that computes the inference.
        trained: see engine_type.
    """
    kind = engine_type(network, layout, device, trained=trained)
    states: PackedStates = kind.states(layout, rows, device)
    return states


def engine_for(
    network: Network,
    weights: Weights,
    states: PackedStates,
    num_real: int,
    *,
    trained: bool = False,
) -> Engine:
    """Make the engine for a network and its stored states.

    Args:
        network: the fixed network.
        weights: a mapping from tensor name to the network's weights, on the device of the states.
        states: the stored states, made by `states_for`.
        num_real: number of outputs that belong to a class.
        trained: see engine_type.

    Raises:
        TypeError: the states are not of the class that the engine needs.
    """
    kind = engine_type(network, states.layout, states.device, trained=trained)
    if not isinstance(states, kind.states):
        raise TypeError(
            f"states must be {kind.states.__name__} on {states.device}, got "
            f"{type(states).__name__}: make the states with states_for"
        )
    engine: Engine = kind(network, weights, states, num_real)
    return engine
