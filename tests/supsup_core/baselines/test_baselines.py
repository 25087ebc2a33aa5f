"""Baselines pass the tests of finders, and train what their names say."""

import numpy as np
import pytest
import torch

from conformance.methods import OVER_WEIGHTS, MethodTests
from supsup_core.baselines.batche import BatchE
from supsup_core.baselines.own_weights import Heads, UpperBound
from supsup_core.engines.choose import engine_for, states_for
from supsup_core.inference.algorithms import Options
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.inference.slopes import GainSlopes
from supsup_core.methods.protocol import layout_of
from supsup_core.networks.mlp import mlp, signed_constant
from supsup_core.networks.units import units
from supsup_core.states.choose import stored_states
from supsup_core.states.floats import FloatStates
from supsup_core.training.choose import trainer_for
from supsup_core.training.recipe import Recipe

CPU = torch.device("cpu")
NETWORK = mlp((8, 8), 12, hidden=[32, 16])
BASELINES = [BatchE(), Heads(), UpperBound()]
SIDES = ("inputs", "outputs")


class OverWeights(MethodTests):
    @pytest.fixture(params=OVER_WEIGHTS, ids=lambda network: network.name)
    def network(self, request):
        return request.param


class TestBatchE(OverWeights):
    method = BatchE()


class TestHeads(OverWeights):
    method = Heads()


class TestUpperBound(OverWeights):
    method = UpperBound()


def begun(method, num_tasks=2):
    starts = [method.begin(NETWORK, task, 0) for task in range(num_tasks)]
    return {n: torch.from_numpy(np.stack([start[n] for start in starts])) for n in starts[0]}


def decoded(method, scores):
    layout = layout_of(NETWORK, method)
    return stored_states(layout, layout.pack(method.end(NETWORK, scores)), CPU)


def test_factors_scale_the_inputs_and_the_outputs_of_each_layer():
    generator = torch.Generator().manual_seed(0)
    scores = {n: torch.randn(s.shape, generator=generator) for n, s in begun(BatchE()).items()}
    weights, images = NETWORK.weights(0), torch.randn(5, 8, 8, generator=generator)
    found = NETWORK.logits(weights, decoded(BatchE(), scores).gains(1), images)
    x = images.flatten(1)
    for i in (1, 2, 3):
        scaled = x * scores[f"layer{i}.inputs"][1]
        x = (scaled @ weights[f"layer{i}"].T) * scores[f"layer{i}.outputs"][1]
        x = x if i == 3 else x.relu()
    torch.testing.assert_close(found, x)


def test_min_entropy_is_inference_from_tiled_images():
    # The paper's way: repeat each image once per task, run all copies through the layers at the
    # same time, each with the factors of its own task, and take the lowest mean entropy.
    generator = torch.Generator().manual_seed(1)
    scores = {n: torch.randn(s.shape, generator=generator) for n, s in begun(BatchE(), 5).items()}
    weights, images = NETWORK.weights(0), torch.randn(7, 3, 8, 8, generator=generator)
    x = images.flatten(0, 1).flatten(1).repeat_interleave(5, dim=0)  # the copies of an image
    for i in (1, 2, 3):
        inputs, outputs = (scores[f"layer{i}.{side}"].repeat(21, 1) for side in SIDES)
        x = ((x * inputs) @ weights[f"layer{i}"].T) * outputs
        x = x if i == 3 else x.relu()
    p = x.softmax(dim=1)
    entropies = -(p * p.log()).sum(dim=1).reshape(7, 3, 5).mean(dim=1)
    layout = layout_of(NETWORK, BatchE())
    rows = layout.pack(BatchE().end(NETWORK, scores))
    engine = engine_for(NETWORK, weights, states_for(NETWORK, layout, rows, CPU), 10)
    found = engine.infer(images, "min_entropy", None, Options()).tasks
    assert torch.equal(found, entropies.argmin(dim=1))
    assert len(found.unique()) > 2


@pytest.mark.parametrize("objective", ["H", "G"])
def test_slopes_of_one_shot_are_those_of_superposed_rank_one_factors(objective):
    # The paper's one-shot on BatchE: W is multiplied by sum_i alpha_i a_i b_i^T. Autograd computes
    # the derivatives for alpha in float64.
    generator = torch.Generator().manual_seed(2)
    scores = {n: torch.randn(s.shape, generator=generator) for n, s in begun(BatchE(), 4).items()}
    weights, images = NETWORK.weights(0), torch.randn(3, 2, 8, 8, generator=generator)
    layout = layout_of(NETWORK, BatchE())
    states = FloatStates(layout, layout.pack(BatchE().end(NETWORK, scores)), CPU)
    given = NETWORK, weights, states, images, OBJECTIVES[objective], 10
    found = GainSlopes(*given)(torch.full((1, 4), 0.25))
    for query, slopes in zip(images.double(), found, strict=True):
        alphas = torch.full((4,), 0.25, dtype=torch.float64, requires_grad=True)
        x = query.flatten(1)
        for i in (1, 2, 3):
            b, a = (scores[f"layer{i}.{side}"].double() for side in SIDES)
            gain = torch.einsum("t,to,ti->oi", alphas, a, b)
            x = x @ (weights[f"layer{i}"].double() * gain).T
            x = x if i == 3 else x.relu()
        if objective == "H":
            value = -(x.softmax(dim=1) * x.log_softmax(dim=1)).sum(dim=1).mean()
        else:
            value = torch.cat([x[:, :10].detach(), x[:, 10:]], dim=1).logsumexp(dim=1).mean()
        (expected,) = torch.autograd.grad(value, alphas)
        torch.testing.assert_close(slopes.double(), expected, rtol=1e-4, atol=1e-5)


def test_an_upper_bound_may_continue_from_the_previous_task(digits, make_tasks):
    network, recipe = mlp((64,), 12, hidden=[16]), Recipe(3, 16, 1e-2, optimizer="adam")
    method = UpperBound(start="previous")
    assert (method.order, UpperBound().order) == ("sequence", "any")
    trainer = trainer_for(network, method, *digits, recipe, seed=0)
    tasks = make_tasks("permuted", range(2), side=8, num_classes=10, num_tasks=2)
    (((first,), shared),) = trainer.stages(tasks[:1], [3], {})
    begun = method.begin(network, 1, 0, shared)
    for tensor in network.tensors:
        name = f"{tensor.name}.gain"
        kept = begun[name] / signed_constant(tensor.fan_in)
        np.testing.assert_allclose(kept, first.floats[name], rtol=1e-6)
        assert not np.shares_memory(begun[name], shared[name])
    (((second,), _),) = trainer.stages(tasks[1:], [3], shared)
    assert not np.array_equal(second.floats["layer1.gain"], first.floats["layer1.gain"])
    # Adam moves a weight by at most about the learning rate in each step.
    moved = second.floats["layer1.gain"] - first.floats["layer1.gain"]
    assert abs(moved).max() * signed_constant(64) < 0.06


def test_factors_start_as_random_signs():
    values = torch.cat([score.flatten() for score in begun(BatchE(), 8).values()])
    assert set(values.tolist()) == {-1.0, 1.0}
    assert abs(values.mean()) < 0.1


@pytest.mark.parametrize("method", [UpperBound(), Heads()])
def test_scores_are_the_effective_weights_up_to_the_sign_of_the_fixed_weights(method):
    scores, weights = begun(method), NETWORK.weights(0)
    gains = decoded(method, scores).gains(1)
    for name, score in scores.items():
        tensor = name.removesuffix(".gain")
        expected = weights[tensor].sign() * score[1]
        torch.testing.assert_close(weights[tensor] * gains[tensor], expected)
    if isinstance(method, UpperBound) and not isinstance(method, Heads):
        assert score.std() == pytest.approx((2 / 16) ** 0.5, rel=0.1)


def test_a_head_leaves_all_layers_but_the_last_one_unchanged():
    gains = decoded(Heads(), begun(Heads())).gains(0)
    assert (gains["layer1"] == 1).all()
    assert (gains["layer2"] == 1).all()
    assert (gains["layer3"] != 1).all()


@pytest.mark.parametrize(
    ("method", "num_floats"),
    [
        (BatchE(), 32 + 64 + 16 + 32 + 12 + 16),
        (Heads(), 12 * 16),
        (UpperBound(), 32 * 64 + 16 * 32 + 12 * 16),
    ],
)
def test_a_row_has_the_floats_and_little_else(method, num_floats):
    assert 4 * num_floats < layout_of(NETWORK, method).row_bytes <= 4 * num_floats + 64


@pytest.mark.parametrize("method", BASELINES, ids=lambda method: type(method).__name__)
def test_gains_over_units_are_refused(method):
    with pytest.raises(ValueError, match="network must have gains over weights"):
        layout_of(units((8, 8), 12, hidden=[16]), method)


@pytest.mark.parametrize("method", [UpperBound(), Heads()])
def test_weights_that_are_no_constants_are_refused(method):
    network = mlp((8, 8), 12, hidden=[16], init="kaiming_normal")
    with pytest.raises(ValueError, match="init must be signed_constant"):
        layout_of(network, method)
