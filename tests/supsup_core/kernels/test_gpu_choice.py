"""The choice between Triton and torch, and the bookkeeping of CUDA graphs."""

import subprocess
from types import SimpleNamespace

import pytest
import torch

from supsup_core.kernels.gpu import choose, packed_plain, replay
from supsup_core.kernels.gpu.choose import packed_kernels
from supsup_core.kernels.gpu.replay import RepeatedStep, Replays


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


# Repeated steps


class Counter:
    """A step that counts its calls, and a graph of it that counts its replays."""

    def __init__(self):
        self.calls = self.replays = 0

    def __call__(self):
        self.calls += 1

    def replay(self):
        self.replays += 1


@pytest.mark.parametrize(
    ("device", "graphs", "expected"),
    [("cuda", True, (2, 4)), ("cuda", False, (5, 0)), ("cpu", True, (5, 0))],
)
def test_the_first_step_records_the_graph_of_the_others(device, graphs, expected, monkeypatch):
    counter = Counter()

    def record(step, where):
        step()
        return SimpleNamespace(replay=counter.replay), None

    monkeypatch.setattr(replay, "_graph_of", record)
    repeated = RepeatedStep(torch.device(device), graphs=graphs)
    for _ in range(5):
        repeated(counter)
    assert (counter.calls, counter.replays) == expected


def test_a_step_that_cannot_be_recorded_is_called_and_said_once(monkeypatch):
    def fail(error):
        def record(step, where):
            raise error

        monkeypatch.setattr(replay, "_graph_of", record)

    fail(RuntimeError("operation not permitted when stream is capturing"))
    repeated, counter = RepeatedStep(torch.device("cuda"), graphs=True), Counter()
    with pytest.warns(RuntimeWarning, match="graph must be recorded, got RuntimeError"):
        repeated(counter)
    for _ in range(2):  # without a warning, which would be an error
        repeated(counter)
    assert counter.calls == 3
    fail(torch.OutOfMemoryError("pretended"))  # then fewer blocks train at a time
    with pytest.raises(torch.OutOfMemoryError):
        RepeatedStep(torch.device("cuda"), graphs=True)(counter)


# A machine without a C compiler


def test_a_failed_compile_falls_back_to_torch_and_says_so_once(monkeypatch):
    packed = pytest.importorskip("supsup_core.kernels.gpu.packed")
    on_cpu = SimpleNamespace(
        arange=lambda number, device: torch.arange(number),
        empty=lambda *shape, dtype, device: torch.empty(*shape, dtype=dtype),
        equal=torch.equal,
        uint8=torch.uint8,
        float32=torch.float32,
    )
    tried = []

    def compile_with_gcc(rows, out):
        tried.append(rows)
        raise subprocess.CalledProcessError(1, ["gcc", "main.c"], "no Python.h")

    monkeypatch.setattr(choose, "torch", on_cpu)
    monkeypatch.setattr(packed, "unpack", compile_with_gcc)
    choose.triton_works.cache_clear()
    with pytest.warns(RuntimeWarning, match="got CalledProcessError: Command .*gcc") as told:
        found = [packed_kernels(torch.device("cuda")) for _ in range(3)]
    choose.triton_works.cache_clear()
    assert found == [packed_plain] * 3
    assert (len(told), len(tried)) == (1, 1)
    assert "\n" not in str(told[0].message)
