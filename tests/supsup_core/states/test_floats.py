"""States whose gains are floats: two linear maps, equal to those of gains kept as whole tensors."""

from itertools import chain

import numpy as np
import pytest
import torch

import supsup_core.states.floats
from conformance.states import NETWORK, NUM_TASKS, StatesTests, plain_states
from supsup_core.networks.protocol import FloatSpec
from supsup_core.states.floats import FloatStates
from supsup_core.states.layout import PlaneSpec, StateLayout, TaskState

CPU = torch.device("cpu")
FIRST, *_, LAST = NETWORK.tensors


def head(tensor):
    return [FloatSpec(f"{tensor.name}.gain", "head", tensor.shape, tensor=tensor.name)]


def factors(tensor):
    sizes = zip(("outputs", "inputs"), tensor.shape, strict=True)
    return [FloatSpec(f"{tensor.name}.{s}", "factor", (n,), 1.0, tensor.name) for s, n in sizes]


def _layout(*floats):
    return StateLayout.of([(tensor, ()) for tensor in NETWORK.tensors], [*chain(*floats)])


LAYOUTS = {
    "heads": _layout(*map(head, NETWORK.tensors)),
    "factors": _layout(*map(factors, NETWORK.tensors)),
    "one head": _layout(head(LAST)),
    "factors, a head and statistics": _layout(
        factors(FIRST), head(LAST), [FloatSpec("mean", "statistic", (5,))]
    ),
}


class TestFloatStates(StatesTests):
    make = staticmethod(
        lambda layout, stored: FloatStates(layout, layout.pack(stored), torch.device("cpu"))
    )

    @pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS)
    def layout(self, request):
        return request.param

    @pytest.fixture(params=[80_000_000, 1], ids=["one part", "parts of one state"], autouse=True)
    def parts(self, request, monkeypatch):
        monkeypatch.setattr(supsup_core.states.floats, "_READ_BYTES", request.param)


def test_layouts_with_planes_are_refused():
    layout = StateLayout.of([(tensor, [PlaneSpec()]) for tensor in NETWORK.tensors])
    with pytest.raises(ValueError, match="layout must have no planes"):
        FloatStates(layout, np.zeros((1, layout.row_bytes), np.uint8), CPU)


def test_no_rows_are_refused():
    layout = LAYOUTS["heads"]
    with pytest.raises(ValueError, match="rows must hold one state or more"):
        FloatStates(layout, np.zeros((0, layout.row_bytes), np.uint8), CPU)


def test_states_may_grow():
    layout = LAYOUTS["factors"]
    drawn = np.random.default_rng(0)
    stored = [
        TaskState((), {p.spec.name: drawn.random(p.spec.shape) for p in layout.floats})
        for _ in range(NUM_TASKS)
    ]
    rows = layout.pack(stored)
    grown = FloatStates(layout, rows[:2], CPU).grown(rows)
    assert len(grown) == NUM_TASKS
    assert torch.equal(
        grown.gains(NUM_TASKS - 1)["layer1"],
        plain_states(layout, stored).gains(NUM_TASKS - 1)["layer1"].float(),
    )
