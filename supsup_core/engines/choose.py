"""Choose the engine: the first engine of names.ENGINES that supports the network and the states."""

from typing import Any

from supsup_core import names
from supsup_core.engines.protocol import Engine
from supsup_core.networks.protocol import Network, Weights
from supsup_core.states.bits import BitStates
from supsup_core.states.layout import StateLayout


# The return type is Any instead of Engine: at run time, Python cannot check a class against a
# protocol that has attributes.
def engine_type(network: Network, layout: StateLayout) -> type[Any]:
    """Return the first class of names.ENGINES that supports a network and a layout of states.

    Args:
        network: the fixed network.
        layout: the layout of the stored states.
    """
    for name in names.ENGINES:
        kind: type[Any] = names.load("engine", names.ENGINES, name)
        if kind.fits(network, layout):
            return kind
    raise AssertionError("names.ENGINES must end with an engine that supports every network")


def engine_for(network: Network, weights: Weights, states: BitStates, num_real: int) -> Engine:
    """Make the engine for a network and its stored states.

    Args:
        network: the fixed network.
        weights: a mapping from name to the network's weights, on the device of the states.
        states: the stored states.
        num_real: number of outputs that belong to a class.
    """
    engine: Engine = engine_type(network, states.layout)(network, weights, states, num_real)
    return engine
