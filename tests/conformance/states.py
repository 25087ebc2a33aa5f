"""Tests that every kind of stored states must pass, by comparison with gains kept as floats.

The tests of a new kind of states are a subclass of StatesTests. Its method `make` stores states.
"""

import numpy as np
import pytest
import torch

from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.inference.slopes import AutogradSlopes, GainSlopes, MLPSlopes
from supsup_core.networks.mlp import MLP
from supsup_core.networks.protocol import FloatSpec
from supsup_core.states.bits import DenseStates
from supsup_core.states.layout import PlaneSpec, StateLayout, TaskState

NETWORK = MLP("tiny", (16, 12, 8, 6))
NUM_TASKS = 7
KEEP, NEGATIVE, COAT = PlaneSpec(), PlaneSpec("negative", -2.0), PlaneSpec("coat")
SCALES = tuple(FloatSpec(f"scale of {t.name}", "scale", (), 1.0, t.name) for t in NETWORK.tensors)
STATISTICS = (
    FloatSpec("mean", "statistic", (5,)),
    FloatSpec("variance", "statistic", (2, 3), 1.0),
    FloatSpec("count", "statistic", ()),
)


def _layout(specs, floats=()):
    return StateLayout.of([(tensor, specs) for tensor in NETWORK.tensors], floats)


LAYOUTS = {
    "one plane": _layout([KEEP]),
    "two planes": _layout([KEEP, NEGATIVE]),
    "three coats": _layout([COAT, COAT, COAT]),
    "one plane and scales": _layout([KEEP], SCALES),
    "two planes and one scale": _layout([KEEP, NEGATIVE], SCALES[1:2]),
    "one plane and statistics": _layout([KEEP], STATISTICS),
    "two planes, scales and statistics": _layout([KEEP, NEGATIVE], (*STATISTICS, *SCALES)),
}


# Plain forms, with gains as floats


def random_state(layout, rng):
    """Draw a state. Each further plane of a tensor is a subset of the plane before."""
    planes = []
    for plane in layout.planes:
        bits = rng.random(plane.shape) < 0.6
        is_first = plane is next(p for p in layout.planes if p.tensor == plane.tensor)
        planes.append(bits if is_first else bits & planes[-1])
    floats = {p.spec.name: rng.uniform(0.5, 2, p.spec.shape) for p in layout.floats}
    return TaskState(tuple(planes), {n: np.array(v, np.float32) for n, v in floats.items()})


def plain_gains(layout, state):
    """Compute gains by their definition: scale * sum of coefficient * bits, or from floats."""
    gains = {} if layout.planes else {t.name: np.ones(t.shape) for t in layout.tensors}
    for tensor, place in layout.heads.items():
        gains[tensor] = state.floats[place.spec.name]
    for tensor, pair in layout.factors.items():
        gains[tensor] = np.outer(*(np.float32(state.floats[place.spec.name]) for place in pair))
    for plane, bits in zip(layout.planes, state.planes, strict=True):
        gains[plane.tensor] = gains.get(plane.tensor, 0) + plane.spec.coefficient * bits
    for tensor, place in layout.scales.items():
        gains[tensor] = gains[tensor] * float(state.floats[place.spec.name])
    return {name: torch.from_numpy(np.asarray(gain, np.float32)) for name, gain in gains.items()}


def plain_states(layout, stored):
    """Make DenseStates from a list of TaskState."""
    gains = [plain_gains(layout, state) for state in stored]
    floats = [
        {name: torch.from_numpy(values) for name, values in state.floats.items()}
        for state in stored
    ]
    return DenseStates(stacked(gains), stacked(floats))


def stacked(parts):
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


def doubled(arrays):
    return {name: array.double() for name, array in arrays.items()}


def as_double(dense):
    """Copy DenseStates to float64."""
    ((gains, floats),) = dense.unpacked()
    return DenseStates(doubled(gains), doubled(floats))


def assert_equal(found, expected):
    """Check that two dicts have the same names, and bitwise equal tensors under each name."""
    assert found.keys() == expected.keys()
    for name, values in found.items():
        assert values.dtype == expected[name].dtype
        assert torch.equal(values, expected[name])


class StatesTests:
    def make(self, layout, stored):
        """Make the states under test from a layout and a list of TaskState."""
        raise NotImplementedError

    @pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS)
    def layout(self, request):
        return request.param

    @pytest.fixture
    def stored(self, layout):
        rng = np.random.default_rng(2)
        return [random_state(layout, rng) for _ in range(NUM_TASKS)]

    @pytest.fixture
    def states(self, layout, stored):
        """The states under test."""
        return self.make(layout, stored)

    @pytest.fixture
    def dense(self, layout, stored):
        """The same states with gains as floats."""
        return plain_states(layout, stored)

    @pytest.fixture
    def alphas(self):
        shares = np.random.default_rng(3).dirichlet(np.ones(NUM_TASKS), size=3)
        return torch.from_numpy(shares).float()

    @pytest.fixture
    def slopes(self, dense):
        """A linear function of the gains for each of three queries."""
        generator = torch.Generator().manual_seed(4)
        return {
            name: torch.randn(3, *gain.shape, generator=generator)
            for name, gain in dense.gains(0).items()
        }

    def test_gains_and_floats_of_a_state_are_what_was_stored(self, states, dense):
        assert len(states) == NUM_TASKS
        for task in range(NUM_TASKS):
            assert_equal(states.gains(task), dense.gains(task))
            assert_equal(states.floats(task), dense.floats(task))

    def test_states_are_unpacked_once_each_and_in_order(self, states, dense):
        for found, expected in zip(
            zip(*states.unpacked(), strict=True), *dense.unpacked(), strict=True
        ):
            assert_equal({n: torch.cat([part[n] for part in found]) for n in found[0]}, expected)

    def test_combine_is_the_weighted_sum_of_gains(self, states, dense, alphas):
        expected = as_double(dense).combine(alphas.double())
        found = states.combine(alphas)
        assert found.keys() == expected.keys()
        for name, gain in found.items():
            torch.testing.assert_close(gain.double(), expected[name], rtol=1e-5, atol=1e-6)

    def test_superposition_of_one_state_is_that_state(self, states):
        together = states.combine(torch.eye(NUM_TASKS))
        for task in range(NUM_TASKS):
            alone = states.combine(torch.eye(NUM_TASKS)[task : task + 1])
            assert_equal({name: gain[0] for name, gain in alone.items()}, states.gains(task))
            assert_equal({n: gain[task] for n, gain in together.items()}, states.gains(task))

    def test_dot_multiplies_each_query_with_each_state(self, states, dense, slopes):
        expected = as_double(dense).dot(doubled(slopes))
        found = states.dot(slopes)
        assert found.shape == (3, NUM_TASKS)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)

    def test_dot_is_the_transpose_of_combine(self, states, alphas, slopes):
        combined = states.combine(alphas)
        one = sum((combined[n] * slope).flatten(1).sum(dim=1) for n, slope in slopes.items())
        other = (states.dot(slopes) * alphas).sum(dim=1)
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)

    def test_combine_and_dot_change_nothing(self, states, alphas, slopes):
        before = {name: slope.clone() for name, slope in slopes.items()}
        first, again = ((states.combine(alphas), states.dot(slopes)) for _ in range(2))
        assert_equal(first[0], again[0])
        assert torch.equal(first[1], again[1])
        assert_equal(slopes, before)

    @pytest.mark.parametrize("name", OBJECTIVES)
    @pytest.mark.parametrize("form", [GainSlopes, MLPSlopes])
    def test_slopes_are_those_of_autograd(self, states, dense, alphas, form, name):
        weights, generator = NETWORK.weights(0), torch.Generator().manual_seed(5)
        inputs, objective = torch.randn(3, 4, 16, generator=generator), OBJECTIVES[name]
        accurate = doubled(weights), as_double(dense), inputs.double()
        expected = AutogradSlopes(NETWORK, *accurate, objective, 4)(alphas.double())
        scale = expected.abs().amax(dim=1, keepdim=True)
        found = form(NETWORK, weights, states, inputs, objective, 4)(alphas)
        assert ((found - expected).abs() / scale).max() < 1e-5
        found = form(NETWORK, *accurate, objective, 4)(alphas.double())
        assert ((found - expected).abs() / scale).max() < 1e-12
