import pytest

from conformance.engines import CASES, EngineTests, trained
from supsup_core.engines.bits import BitsEngine
from supsup_core.engines.mlp import MLPEngine
from supsup_core.engines.plain import PlainEngine


class TestPlainEngine(EngineTests):
    engine = PlainEngine

    @pytest.fixture(params=CASES)
    def case(self, request, digits, make_tasks):
        return trained(request.param, digits, make_tasks)


class TestMLPEngine(EngineTests):
    engine = MLPEngine

    @pytest.fixture(params=["mlp", "signed"])
    def case(self, request, digits, make_tasks):
        return trained(request.param, digits, make_tasks)


class TestBitsEngine(EngineTests):
    engine = BitsEngine


def test_bits_are_prepared_once_and_taken_over(digits, make_tasks):
    case = trained("mlp", digits, make_tasks)
    engine = BitsEngine(case.network, case.weights, case.states(3), 10)
    bits = engine.bits
    assert engine.bits is bits
    grown = engine.grown(case.states(6))
    assert grown.bits is bits
    assert len(bits) == 6
