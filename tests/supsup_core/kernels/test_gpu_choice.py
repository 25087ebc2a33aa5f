"""The choice between Triton and torch, and the bookkeeping of CUDA graphs."""

from types import SimpleNamespace

import pytest
import torch

from supsup_core.kernels.gpu import packed_plain, replay
from supsup_core.kernels.gpu.choose import packed_kernels
from supsup_core.kernels.gpu.replay import Replays


class OnGPU:
    """The shape of a tensor on a GPU, for code that does not compute with the tensor."""

    def __init__(self, *shape):
        self.shape, self.dtype, self.device = shape, torch.float32, torch.device("cuda")

    def __len__(self):
        return self.shape[0]


@pytest.fixture
def replays(no_shape_checks):
    return Replays(most_inputs=4)


@pytest.fixture
def recorded(monkeypatch):
    """A list of the recorded shapes. Recording keeps a function's result, as a graph does."""
    shapes = []

    def record(function, inputs, other):
        shapes.append(inputs.shape)
        graph = SimpleNamespace(replay=lambda: None)
        return graph, SimpleNamespace(copy_=lambda inputs: None), f"graph of {inputs.shape}"

    monkeypatch.setattr(replay, "_recorded", record)
    return shapes


def test_devices_without_triton_use_torch():
    assert packed_kernels(torch.device("cpu")) is packed_plain


def test_the_second_call_with_a_shape_records_a_graph(replays, recorded):
    def ask(*shape):
        return replays(lambda inputs, other: "computed", OnGPU(*shape), "H")

    assert [ask(2, 3) for _ in range(4)] == ["computed", *["graph of (2, 3)"] * 3]
    assert ask(1, 3) == "computed"
    assert recorded == [(2, 3)]
    assert [ask(5, 3) for _ in range(3)] == ["computed"] * 3


def test_on_the_cpu_every_call_computes(recorded):
    replays, inputs = Replays(most_inputs=4), torch.ones(2)
    found = [replays(lambda inputs, other: (inputs + other,), inputs, i) for i in (1, 1, 1)]
    assert [one[0].tolist() for one in found] == [[2, 2]] * 3
    assert recorded == []


def test_a_function_that_cannot_be_recorded_is_called(replays, monkeypatch):
    def fail(function, inputs, other):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(replay, "_recorded", fail)

    def ask():
        return replays(lambda inputs, other: "computed", OnGPU(2, 3), "H")

    assert ask() == "computed"
    with pytest.warns(RuntimeWarning, match="CUDA graph must be recorded, got RuntimeError"):
        assert ask() == "computed"
    assert [ask() for _ in range(3)] == ["computed"] * 3
