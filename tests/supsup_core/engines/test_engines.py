import pytest
import torch

from conformance.engines import OF_BITS, EngineTests, trained
from supsup_core.engines import device
from supsup_core.engines.bits import BitsEngine
from supsup_core.engines.device import DeviceEngine
from supsup_core.engines.floats import FloatEngine
from supsup_core.engines.mlp import MLPEngine
from supsup_core.engines.plain import PlainEngine
from supsup_core.names import RANKED


class TestPlainEngine(EngineTests):
    engine = PlainEngine

    @pytest.fixture(params=OF_BITS)
    def case(self, request, digits, make_tasks):
        return trained(request.param, digits, make_tasks)


class TestFloatEngine(EngineTests):
    engine = FloatEngine

    @pytest.fixture(params=["batche", "upper_bound"])
    def case(self, request, digits, make_tasks):
        return trained(request.param, digits, make_tasks)


class TestMLPEngine(EngineTests):
    engine = MLPEngine

    @pytest.fixture(params=["mlp", "signed"])
    def case(self, request, digits, make_tasks):
        return trained(request.param, digits, make_tasks)


class TestBitsEngine(EngineTests):
    engine = BitsEngine


class TestDeviceEngine(EngineTests):
    """The engine of a GPU, with the same computations on the CPU."""

    engine = DeviceEngine
    device = torch.device("cuda")
    inexact = ()

    @pytest.fixture(params=OF_BITS)
    def case(self, request, digits, make_tasks):
        return trained(request.param, digits, make_tasks)


class TestDeviceEngineWithCandidates(TestDeviceEngine):
    """With two candidates, more queries need the exact products of all states."""

    algorithms = ("one_shot", RANKED)  # those that look for candidates

    @pytest.fixture(autouse=True)
    def _candidates(self, monkeypatch):
        monkeypatch.setattr(device, "CANDIDATES", 2)


def test_bits_are_prepared_once_and_taken_over(digits, make_tasks):
    case = trained("mlp", digits, make_tasks)
    engine = case.made(BitsEngine, 3)
    bits = engine.bits
    assert engine.bits is bits
    grown = engine.grown(case.rows)
    assert grown.bits is bits
    assert len(bits) == 6
