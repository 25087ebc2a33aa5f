"""Tests of the choice of an engine for a network and its states."""

import numpy as np
import pytest
import torch

from supsup_core import names
from supsup_core.engines.bits import BitsEngine
from supsup_core.engines.choose import engine_for, engine_type, states_for
from supsup_core.engines.device import DeviceEngine
from supsup_core.engines.floats import FloatEngine
from supsup_core.engines.mlp import MLPEngine
from supsup_core.engines.plain import PlainEngine
from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.signed import Signed
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.mlp import MLP, lenet_300_100
from supsup_core.networks.protocol import FloatSpec
from supsup_core.networks.units import UnitMLP
from supsup_core.states.bits import BitStates
from supsup_core.states.layout import PlaneSpec, StateLayout
from supsup_core.states.resident import ResidentStates


class Derived(MLP):
    """A subclass of MLP, which may compute differently."""


LENET, UNITS = lenet_300_100((28, 28), 500), UnitMLP("units", (784, 512, 10))
CPU = torch.device("cpu")
DERIVED = Derived("derived", (16, 6))
SCALE = FloatSpec("scale", "scale", (), 1.0, "layer1")


def layout_with(specs, floats=()):
    return StateLayout.of([(tensor, specs) for tensor in LENET.tensors], floats)


@pytest.mark.parametrize(
    ("network", "layout", "kind"),
    [
        (LENET, layout_of(LENET, Threshold()), BitsEngine),
        (LENET, layout_of(LENET, EdgePopup()), BitsEngine),
        (LENET, layout_of(LENET, Signed()), MLPEngine),
        (LENET, layout_with([PlaneSpec("coat")] * 3), MLPEngine),
        (LENET, layout_with([PlaneSpec("keep", 2.0)]), MLPEngine),
        (
            LENET,
            layout_with([PlaneSpec()], [FloatSpec("a", "scale", (), 1.0, "layer1")]),
            MLPEngine,
        ),
        (DERIVED, layout_of(DERIVED, Threshold()), PlainEngine),
        (UNITS, layout_of(UNITS, Threshold()), PlainEngine),
        (UNITS, layout_of(UNITS, Signed()), PlainEngine),
    ],
)
def test_network_and_states_choose_the_engine(network, layout, kind):
    assert engine_type(network, layout, CPU) is kind
    assert engine_type(network, layout, torch.device("cuda")) is DeviceEngine
    states = states_for(network, layout, np.zeros((2, layout.row_bytes), np.uint8), CPU)
    assert type(states) is BitStates
    assert type(engine_for(network, network.weights(0), states, 10)) is kind


def test_states_of_another_class_are_refused():
    layout = layout_of(LENET, Threshold())
    states = ResidentStates(layout, np.zeros((2, layout.row_bytes), np.uint8), CPU)
    with pytest.raises(TypeError, match="states must be BitStates on cpu, got ResidentStates"):
        engine_for(LENET, LENET.weights(0), states, 10)


def test_engines_have_their_names_in_the_order_of_preference():
    found = [names.load("engine", names.ENGINES, name) for name in names.ENGINES]
    assert found == [FloatEngine, DeviceEngine, BitsEngine, MLPEngine, PlainEngine]
    floats, device, bits, mlp, plain = (kind.supports for kind in found)
    assert device == bits == set(names.INFERENCE_ALGORITHMS)
    assert floats == mlp == plain == device - {names.RANKED}
