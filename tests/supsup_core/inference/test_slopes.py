"""Tests of slopes by autograd, by gains, and by outer products for an MLP."""

import numpy as np
import pytest
import torch

from conformance.states import as_double, doubled
from supsup_core.inference.algorithms import one_shot
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.inference.slopes import AutogradSlopes, GainSlopes, MLPSlopes
from supsup_core.networks.mlp import MLP
from supsup_core.networks.units import UnitMLP

NUM_TASKS, NUM_QUERIES, NUM_REAL = 7, 4, 4  # two of the six outputs are superfluous
UNITS = UnitMLP("two hidden layers", (16, 12, 8, 6))


def assert_same_slopes(found, expected, tolerance=1e-4):
    scale = expected.abs().amax(dim=1, keepdim=True)
    assert (scale > 1e-4).all()
    assert ((found - expected).abs() / scale).max() < tolerance


def accurate(network, dense, queries, objective):
    """Make the plain form of the slopes, in float64."""
    given = network, doubled(network.weights(0)), as_double(dense), queries.double()
    return AutogradSlopes(*given, objective, NUM_REAL)


@pytest.fixture(params=["uniform", "shared", "one a query"])
def alphas(request, rng):
    if request.param == "uniform":
        return torch.full((1, NUM_TASKS), 1 / NUM_TASKS)
    rows = 1 if request.param == "shared" else NUM_QUERIES
    return torch.from_numpy(rng.dirichlet(np.ones(NUM_TASKS), size=rows)).float()


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize("num_images", [1, 5])
@pytest.mark.parametrize("form", [GainSlopes, MLPSlopes])
@pytest.mark.usefixtures("_rows_at_once")
def test_slopes_of_bits_are_those_of_autograd(
    tiny, objective, num_images, alphas, form, stored, random_queries
):
    dense, packed = stored(tiny)
    queries = random_queries(num_images)
    plain = accurate(tiny, dense, queries, objective)
    found = form(tiny, tiny.weights(0), packed, queries, objective, NUM_REAL)(alphas)
    assert found.shape == (NUM_QUERIES, NUM_TASKS)
    assert_same_slopes(found, plain(alphas.double()))


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_slopes_of_masks_over_units_are_those_of_autograd(
    objective, alphas, stored, random_queries
):
    dense, packed = stored(UNITS)
    queries = random_queries(10)
    gradient = GainSlopes(UNITS, UNITS.weights(0), packed, queries, objective, NUM_REAL)
    plain = accurate(UNITS, dense, queries, objective)
    assert_same_slopes(gradient(alphas), plain(alphas.double()))
    assert one_shot(gradient).tasks.shape == (NUM_QUERIES,)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_autograd_gives_the_slope_of_the_objective(tiny, name, stored, random_queries):
    dense = as_double(stored(tiny)[0])
    queries = random_queries(5, num_queries=1).double()
    alphas = torch.linspace(0.05, 0.3, NUM_TASKS, dtype=torch.float64)
    weights = doubled(tiny.weights(0))

    def logits_at(a):
        counted = [a, alphas, alphas] if name.endswith("_first_layer") else [a, a, a]
        x = queries[0]
        for i, ((layer, weight), alpha) in enumerate(zip(weights.items(), counted, strict=True)):
            superposed = sum(alpha[t] * dense.gains(t)[layer] for t in range(NUM_TASKS))
            x = (x.relu() if i else x) @ (weight * superposed).T
        return x

    def objective_at(a):
        logits = logits_at(a)
        if name.startswith("H"):
            p = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
            return -(p * p.log()).sum(dim=1).mean()
        # The gradient of G does not flow through real outputs, so real outputs stay the same.
        logits[:, :NUM_REAL] = logits_at(alphas)[:, :NUM_REAL]
        return logits.exp().sum(dim=1).log().mean()

    step = 1e-6
    expected = [
        (objective_at(alphas + step * e) - objective_at(alphas - step * e)) / (2 * step)
        for e in torch.eye(NUM_TASKS, dtype=torch.float64)
    ]
    found = AutogradSlopes(tiny, weights, dense, queries, OBJECTIVES[name], NUM_REAL)(alphas[None])
    torch.testing.assert_close(found[0], torch.stack(expected), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["H", "G"])
@pytest.mark.parametrize("form", [AutogradSlopes, GainSlopes, MLPSlopes])
def test_first_layer_has_slopes_of_its_own(tiny, name, form, stored, random_queries):
    queries, alphas = random_queries(3), torch.full((1, NUM_TASKS), 1 / NUM_TASKS)
    dense, packed = stored(tiny)
    states = dense if form is AutogradSlopes else packed
    first, every = (
        form(tiny, tiny.weights(0), states, queries, OBJECTIVES[scope], NUM_REAL)(alphas)
        for scope in (f"{name}_first_layer", name)
    )
    assert ((first - every).abs().amax(dim=1) > 0.1 * every.abs().amax(dim=1)).all()


@pytest.mark.parametrize("name", ["H", "G"])
@pytest.mark.parametrize("form", [GainSlopes, MLPSlopes])
def test_first_layer_of_one_is_all_there_is(name, form, stored, random_queries):
    network = MLP("one", (16, 6))
    _, packed = stored(network)
    queries, alphas = random_queries(3), torch.full((1, NUM_TASKS), 1 / NUM_TASKS)
    first, every = (
        form(network, network.weights(0), packed, queries, OBJECTIVES[scope], NUM_REAL)(alphas)
        for scope in (f"{name}_first_layer", name)
    )
    assert torch.equal(first, every)


@pytest.mark.parametrize("form", [GainSlopes, MLPSlopes])
def test_slopes_leave_images_weights_and_states_as_they_were(tiny, form, stored, random_queries):
    weights, queries = tiny.weights(0), random_queries(2)
    alphas = torch.full((1, NUM_TASKS), 1 / NUM_TASKS)
    for states in stored(tiny):
        before = {n: w.clone() for n, w in weights.items()}, queries.clone(), states.gains(3)
        gradient = form(tiny, weights, states, queries, OBJECTIVES["H"], NUM_REAL)
        assert torch.equal(gradient(alphas), gradient(alphas))
        assert all(torch.equal(weights[n], w) for n, w in before[0].items())
        assert torch.equal(queries, before[1])
        assert all(torch.equal(states.gains(3)[n], g) for n, g in before[2].items())
