"""Tests that every engine must pass. They compare the engine's answers with autograd in float64.

The tests of a new engine are a subclass of EngineTests with the attribute `engine`. By default
the tests use masks of one plane over the weights of an MLP. If the engine supports more, the
subclass overrides the fixture `case` with more entries of CASES.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from conformance.states import as_double, doubled, plain_states
from supsup_core.baselines.batche import BatchE
from supsup_core.baselines.own_weights import UpperBound
from supsup_core.data import normalise
from supsup_core.inference.algorithms import BY_GRADIENT, Options
from supsup_core.inference.answers import NO_TASK
from supsup_core.inference.forward import infer_by_forward
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.inference.slopes import AutogradSlopes
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.signed import Signed
from supsup_core.methods.threshold import Threshold
from supsup_core.names import ALGORITHMS, FORWARD_ALGORITHMS, RANKED
from supsup_core.networks.mlp import mlp
from supsup_core.networks.units import units
from supsup_core.training.choose import trainer_for
from supsup_core.training.recipe import Recipe

CPU = torch.device("cpu")
NUM_TASKS, NUM_REAL = 6, 10
OPTIONS = Options(steps=4)
CASES = {
    "mlp": (mlp((64,), 30, hidden=[48, 32]), Threshold()),
    "signed": (mlp((64,), 30, hidden=[48, 32]), Signed()),
    "units": (units((64,), 30, hidden=[512]), Threshold()),
    "batche": (mlp((64,), 30, hidden=[48, 32]), BatchE()),
    "upper_bound": (mlp((64,), 30, hidden=[48, 32]), UpperBound()),
}
OF_BITS = ("mlp", "signed", "units")  # cases whose states have planes of bits
RECIPES = {
    "mlp": Recipe(steps=100, batch_size=64, learning_rate=5e-3),
    "signed": Recipe(steps=100, batch_size=64, learning_rate=5e-3),
    "units": Recipe(steps=60, batch_size=64, learning_rate=0.1, optimizer="sgd", momentum=0.9),
    "batche": Recipe(steps=100, batch_size=64, learning_rate=3e-2),
    "upper_bound": Recipe(steps=100, batch_size=64, learning_rate=3e-3),
}
_CASES: dict[str, "Case"] = {}  # trained cases by name, so that each is trained once


class AccurateSlopes(AutogradSlopes):
    """Slopes in float64, for coefficients of any type."""

    def __call__(self, alphas):
        return super().__call__(alphas.double())


@dataclass(frozen=True, eq=False)
class Case:
    """A network, the states that were trained on it, and queries."""

    network: Any
    layout: Any
    rows: np.ndarray
    few: torch.Tensor  # queries of 2 images each
    many: torch.Tensor  # queries of 32 images each, which make the answer clear

    @property
    def weights(self):
        return self.network.weights(0)

    def made(self, engine, num_tasks=NUM_TASKS):
        """An engine with the first states."""
        states = engine.states(self.layout, self.rows[:num_tasks], CPU)
        return engine(self.network, self.weights, states, NUM_REAL)

    @cache  # noqa: B019 (there are few cases, and _CASES keeps them)
    def expected(self, inputs, algorithm, objective):
        """Compute the expected answers in float64, by autograd or by one forward pass per state."""
        weights = doubled(self.weights)
        dense = as_double(plain_states(self.layout, self.layout.unpack(self.rows)))
        given = self.network, weights, dense, getattr(self, inputs).double()
        if algorithm in FORWARD_ALGORITHMS:
            return infer_by_forward(algorithm, *given, NUM_REAL)
        slopes = AccurateSlopes(*given, OBJECTIVES[objective], NUM_REAL)
        return BY_GRADIENT["one_shot" if algorithm == RANKED else algorithm](slopes, OPTIONS)


def trained(name, digits, make_tasks):
    if name not in _CASES:
        (network, method), recipe = CASES[name], RECIPES[name]
        tasks = make_tasks(
            "permuted", range(NUM_TASKS), side=8, num_classes=10, num_tasks=NUM_TASKS
        )
        trainer = trainer_for(network, method, *digits, recipe, seed=0)
        ((states, _),) = trainer.stages(tasks, [recipe.steps])
        layout = layout_of(network, method)
        test = digits[1]

        def queries(first, num_images):
            shown = [task.images(test.images[first : first + num_images]) for task in tasks]
            return normalise(torch.from_numpy(np.stack(shown)), test.mean, test.std)

        few = torch.cat([queries(first, 2) for first in range(0, 6, 2)])
        _CASES[name] = Case(network, layout, layout.pack(states), few, queries(20, 32))
    return _CASES[name]


def objective_of(algorithm, objective):
    return None if algorithm in FORWARD_ALGORITHMS else OBJECTIVES[objective]


class EngineTests:
    engine = None  # the engine's class; the subclass sets this attribute
    device = CPU  # a device that the engine supports
    # With weak evidence, the ranked scan of bits may give another answer than autograd.
    inexact = (RANKED,)
    algorithms = ALGORITHMS  # the tests use those algorithms that the engine supports

    @pytest.fixture(params=["mlp"])
    def case(self, request, digits, make_tasks):
        return trained(request.param, digits, make_tasks)

    @pytest.fixture
    def made(self, case):
        """An engine with all states."""
        return case.made(self.engine)

    def pytest_generate_tests(self, metafunc):
        """Run a test with `algorithm` once for each algorithm that the engine supports.

        A test with `objective` too runs once for each objective of an algorithm. Algorithms that
        use forward passes only have no objective.
        """
        supported = [a for a in self.algorithms if a in self.engine.supports]
        if "objective" in metafunc.fixturenames:
            some = {a: ["none"] if a in FORWARD_ALGORITHMS else OBJECTIVES for a in supported}
            pairs = [(a, objective) for a, objectives in some.items() for objective in objectives]
            metafunc.parametrize(("algorithm", "objective"), pairs)
        elif "algorithm" in metafunc.fixturenames:
            metafunc.parametrize("algorithm", supported)

    def test_it_fits_what_it_is_tested_with(self, case):
        assert self.engine.fits(case.network, case.layout, self.device)

    def test_algorithms_have_known_names(self):
        assert self.engine.supports
        assert self.engine.supports <= set(ALGORITHMS)

    def test_answers_are_those_of_autograd(self, made, case, algorithm, objective):
        named = set()
        for inputs in ["many"] if algorithm in self.inexact else ["many", "few"]:
            expected = case.expected(inputs, algorithm, objective)
            named |= set(expected.tasks.tolist())
            asked = getattr(case, inputs), algorithm, objective_of(algorithm, objective), OPTIONS
            found = made.infer(*asked)
            assert found.tasks.tolist() == expected.tasks.tolist()
            assert found.num_gradients == expected.num_gradients
            if algorithm not in self.inexact:
                self.check_runners_up(found, expected)
            assert 0 < found.bits_read_fraction <= 1
        assert len(named) > 1

    def check_runners_up(self, found, expected):
        """Compare runners-up and margins with those of float64, up to nearly equal scores."""
        margins = expected.margins.nan_to_num()
        torch.testing.assert_close(found.margins.nan_to_num(), margins, rtol=2e-2, atol=1e-4)
        same = (found.runners_up == expected.runners_up).double().mean()
        assert same >= 0.9, (found.runners_up, expected.runners_up)

    @pytest.mark.parametrize("log_base", [NUM_TASKS, 100])
    def test_binary_with_a_base_as_large_as_the_tasks_is_one_shot(self, made, case, log_base):
        objective = OBJECTIVES["H"]
        found = made.infer(case.few, "binary", objective, Options(log_base=log_base))
        expected = made.infer(case.few, "one_shot", objective, OPTIONS)
        assert found.tasks.tolist() == expected.tasks.tolist()
        assert found.num_gradients == expected.num_gradients == 1

    def test_options_reach_their_algorithm(self, made, case, algorithm):
        gradients = {"binary": 2, "gradient_descent": 4, "frank_wolfe": 4}  # 6 tasks, log_base 3
        options = Options(log_base=3, steps=4)
        found = made.infer(case.few, algorithm, objective_of(algorithm, "H"), options)
        forwards = 0 if algorithm in FORWARD_ALGORITHMS else 1
        assert found.num_gradients == gradients.get(algorithm, forwards)

    @pytest.mark.parametrize("is_used", [False, True], ids=["unused", "used"])
    def test_an_engine_that_grew_answers_as_one_made_anew(self, made, case, algorithm, is_used):
        asked = case.few, algorithm, objective_of(algorithm, "H"), Options()
        grown = case.made(self.engine, 2)
        for num_tasks in (4, NUM_TASKS):
            if is_used:  # so that the engine has prepared its data before it grows
                assert grown.infer(*asked).tasks.max() < num_tasks
            grown = grown.grown(case.rows[:num_tasks])
            assert len(grown.stored) == num_tasks
        assert type(grown) is self.engine
        assert grown.infer(*asked).tasks.tolist() == made.infer(*asked).tasks.tolist()

    def test_one_state_is_the_answer(self, case, algorithm):
        alone = case.made(self.engine, 1)
        found = alone.infer(case.few, algorithm, objective_of(algorithm, "H"), OPTIONS)
        assert found.tasks.tolist() == [0] * len(case.few)
        assert found.runners_up.tolist() == [NO_TASK] * len(case.few)
        assert found.margins.isnan().all()

    def test_queries_together_are_inferred_as_one_by_one(self, made, case, algorithm):
        objective = objective_of(algorithm, "G")
        together = made.infer(case.few, algorithm, objective, OPTIONS).tasks.tolist()
        alone = [made.infer(q[None], algorithm, objective, OPTIONS) for q in case.few[:8]]
        assert together[:8] == [found.tasks.item() for found in alone]

    def test_inferring_changes_nothing(self, made, case, algorithm):
        inputs, rows = case.few.clone(), case.rows.copy()
        asked = inputs, algorithm, objective_of(algorithm, "H"), Options()
        assert made.infer(*asked).tasks.tolist() == made.infer(*asked).tasks.tolist()
        assert torch.equal(inputs, case.few)
        assert np.array_equal(rows, case.rows)

    def test_queries_of_more_inputs_are_fewer(self, made):
        one, many = (made.queries_together(num_inputs) for num_inputs in (1, 10**6))
        assert 1 <= many <= one

    def test_answers_are_on_the_cpu(self, made, case, algorithm):
        found = made.infer(case.few, algorithm, objective_of(algorithm, "H"), OPTIONS)
        assert found.tasks.device == CPU
        assert made.device == made.stored.device == CPU

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_inputs_that_are_not_finite_are_refused(self, made, case, algorithm, bad):
        inputs = case.few.clone()
        inputs[-1, 0, 3] = bad
        with pytest.raises(FloatingPointError, match="evidence must be finite"):
            made.infer(inputs, algorithm, objective_of(algorithm, "H"), OPTIONS)
