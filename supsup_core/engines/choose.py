"""The one place that chooses what infers: bits where they fit, else the network's own form."""

from typing import Any

from supsup_core import names
from supsup_core.engines.protocol import Engine
from supsup_core.networks.protocol import Network, Weights
from supsup_core.states.bits import BitStates
from supsup_core.states.layout import StateLayout


# Any stands for Engine: Python does not compare a class with a protocol that has attributes.
def engine_type(network: Network, layout: StateLayout) -> type[Any]:
    """The class of the first engine of names.ENGINES that fits.

    Args:
        network: the fixed network.
        layout: of the states.
    """
    for name in names.ENGINES:
        kind: type[Any] = names.load("engine", names.ENGINES, name)
        if kind.fits(network, layout):
            return kind
    raise AssertionError("the last engine fits everything")


def engine_for(network: Network, weights: Weights, states: BitStates, num_real: int) -> Engine:
    """Make what infers tasks among stored states.

    Args:
        network: the fixed network.
        weights: its weights, on the device of the states.
        states: the stored states.
        num_real: number of outputs that have a label.
    """
    engine: Engine = engine_type(network, states.layout)(network, weights, states, num_real)
    return engine
