"""Finders that train masks and weights: they pass the tests of finders, and forget nothing."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from conformance.methods import OVER_WEIGHTS, MethodTests, assert_same_planes
from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.exssnet import ExSSNeT
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.wsn import WSN
from supsup_core.networks.mlp import mlp
from supsup_core.networks.module import as_network
from supsup_core.networks.resnet import resnet18_slim
from supsup_core.networks.units import units
from supsup_core.states.choose import stored_states
from supsup_core.training.autograd import AutogradTrainer
from supsup_core.training.choose import trainer_for
from supsup_core.training.recipe import Recipe

CPU = torch.device("cpu")
NETWORK = mlp((8, 8), 12, hidden=[24, 16])
RECIPE = Recipe(steps=12, batch_size=16, learning_rate=1e-2)
DENSE = ExSSNeT(density=0.4)  # after two tasks, a third one still has free weights


class OverWeights(MethodTests):
    @pytest.fixture(params=OVER_WEIGHTS, ids=lambda network: network.name)
    def network(self, request):
        return request.param


class TestExSSNeT(OverWeights):
    method = ExSSNeT(density=0.3)


class TestExSSNeTByKappa(OverWeights):
    method = ExSSNeT(kappa=2.0)


class TestWSN(OverWeights):
    method = WSN()


def made(method, data, recipe=RECIPE, network=NETWORK, **options):
    shaped = (replace(d, images=d.images.reshape(-1, *network.input_shape)) for d in data)
    return trainer_for(network, method, *shaped, recipe, seed=0, **options)


def in_turn(trainer, tasks, steps=RECIPE.steps):
    """Train tasks one after another, and return their states and the data after each task."""
    states, shared = [], [{}]
    for task in tasks:
        (((state,), after),) = trainer.stages([task], [steps], shared[-1])
        states.append(state)
        shared.append(after)
    return states, shared[1:]


def logits(method, network, state, shared, images):
    """Compute the logits of a state with the weights after some task."""
    layout = layout_of(network, method)
    stored = stored_states(layout, layout.pack([state]), CPU)
    trained = {t.source: torch.from_numpy(shared[t.source]) for t in network.tensors}
    floats = stored.floats(0) or None
    return network.logits(network.weights(0) | trained, stored.gains(0), images, floats)


@pytest.fixture
def tasks(make_tasks):
    return make_tasks("permuted", range(3), side=8, num_classes=10, num_tasks=3)


# Forgetting


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        replace(RECIPE, optimizer="adam", momentum=0.9, weight_decay=0.1),
        replace(RECIPE, optimizer="sgd", learning_rate=0.1, momentum=0.9),
    ],
    ids=lambda recipe: recipe.optimizer,
)
@pytest.mark.parametrize("method", [DENSE, WSN()], ids=["exssnet", "wsn"])
def test_later_tasks_do_not_change_the_logits_of_earlier_tasks(method, recipe, digits, tasks, rng):
    states, shared = in_turn(made(method, digits, recipe), tasks)
    images = torch.from_numpy(rng.standard_normal((5, 8, 8), np.float32))
    for i, state in enumerate(states):
        first, *later = (logits(method, NETWORK, state, s, images) for s in shared[i:])
        assert all(torch.equal(first, other) for other in later)
    for before, after in pairwise(shared):
        assert all((before[t.source] != after[t.source]).any() for t in NETWORK.tensors)


@pytest.mark.parametrize("method", [DENSE, WSN()], ids=["exssnet", "wsn"])
def test_a_residual_network_forgets_nothing_either(method, digits, make_tasks, rng):
    shape = (1, 8, 8)
    network = as_network("slim", resnet18_slim(shape, 12, width=2), shape)
    trainer = made(method, digits, replace(RECIPE, steps=4), network)
    tasks = make_tasks("split", range(2), side=8, num_classes=10)
    (state, _), (first, last) = in_turn(trainer, tasks, 4)
    images = torch.from_numpy(rng.standard_normal((5, *shape), np.float32))
    with torch.no_grad():
        one, other = (logits(method, network, state, s, images) for s in (first, last))
    assert torch.equal(one, other)
    assert any((first[t.source] != last[t.source]).any() for t in network.tensors)


def test_ssnet_trains_the_whole_mask_and_forgets(digits, tasks, rng):
    method = ExSSNeT(density=0.4, exclusive=False)
    states, shared = in_turn(made(method, digits), tasks[:2])
    images = torch.from_numpy(rng.standard_normal((5, 8, 8), np.float32))
    one, other = (logits(method, NETWORK, states[0], s, images) for s in shared)
    assert not torch.allclose(one, other)


# Which weights change


def test_exssnet_changes_the_free_weights_of_the_mask_only(digits, tasks):
    states, shared = in_turn(made(DENSE, digits), tasks)
    before = {name: w.numpy() for name, w in NETWORK.weights(0).items()}
    taken = {t.source: np.zeros(t.shape, bool) for t in NETWORK.tensors}
    for state, after in zip(states, shared, strict=True):
        for tensor, mask in zip(NETWORK.tensors, state.planes, strict=True):
            changed = before[tensor.source] != after[tensor.source]
            assert changed.any()
            assert not (changed & ~mask).any()
            assert not (changed & taken[tensor.source]).any()
            taken[tensor.source] |= mask
        before = after


def test_the_first_phase_trains_scores_and_the_second_phase_trains_weights(digits, tasks):
    trainer = made(DENSE, digits)
    steps = [0, 8, 12]  # of 12 steps, 0.33 * 12 = 4 train weights
    (begun, start), (middle, same), (end, trained) = trainer.stages(tasks[:1], steps)
    assert_same_planes(middle[0], end[0])
    assert any(map(np.any, np.not_equal(begun[0].planes[0], middle[0].planes[0])))
    for tensor in NETWORK.tensors:
        assert np.array_equal(start[tensor.source], same[tensor.source])
        assert not np.array_equal(same[tensor.source], trained[tensor.source])


def test_exssnet_that_trains_no_weights_is_edge_popup(digits, tasks):
    found, shared = in_turn(made(ExSSNeT(density=0.3, weight_share=0.0), digits), tasks)
    plain = made(EdgePopup(density=0.3), digits)
    own = AutogradTrainer(
        *(NETWORK, EdgePopup(density=0.3), plain._data, plain._measure, RECIPE),
        seed=0,
        dtype=torch.float32,
        device=CPU,
    )
    for task, state in zip(tasks, found, strict=True):
        (((expected,), _),) = own.stages([task], [RECIPE.steps])
        assert_same_planes(state, expected)
    for name, weight in NETWORK.weights(0).items():
        assert all(np.array_equal(after[name], weight.numpy()) for after in shared)


@pytest.mark.parametrize("method", [DENSE, WSN()], ids=["exssnet", "wsn"])
def test_taken_weights_are_those_of_all_masks_so_far(method, digits, tasks):
    states, shared = in_turn(made(method, digits), tasks)
    for i, after in enumerate(shared):
        planes = [
            np.any(own, axis=0) for own in zip(*(s.planes for s in states[: i + 1]), strict=True)
        ]
        for tensor, kept in zip(NETWORK.tensors, planes, strict=True):
            assert np.array_equal(after[f"taken {tensor.source}"], kept)
        share = 1 - sum(kept.sum() for kept in planes) / sum(kept.size for kept in planes)
        assert method.free_share(after) == pytest.approx(share, abs=1e-12)


def test_scores_of_wsn_continue_from_the_previous_task(digits, tasks):
    trainer = made(WSN(), digits)
    _, (after, _) = in_turn(trainer, tasks[:2])
    (begun,) = trainer._starts(tasks[1:2], after)
    for tensor in NETWORK.tensors:
        assert np.array_equal(begun[tensor.name], after[f"scores {tensor.name}"])
        drawn = WSN().begin(NETWORK, 1, 0)[tensor.name]
        assert not np.array_equal(begun[tensor.name], drawn)


def test_both_phases_learn(digits, tasks):
    method, recipe = ExSSNeT(density=0.3), replace(RECIPE, steps=90, learning_rate=3e-3)
    trainer = made(method, digits, recipe)
    stages = trainer.stages(tasks[:1], [0, 60, 90])
    losses = [trainer.measure(tasks[0], state, s).loss for (state,), s in stages]
    assert losses[0] > losses[1] > losses[2]


# What does not fit


@pytest.mark.parametrize("method", [ExSSNeT(), WSN()], ids=["exssnet", "wsn"])
def test_gains_over_units_are_refused(method):
    with pytest.raises(ValueError, match=r"gains over weights .* units of units1"):
        layout_of(units((8, 8), 12, hidden=[16]), method)


@pytest.mark.parametrize("method", [ExSSNeT(), WSN()], ids=["exssnet", "wsn"])
def test_several_tasks_at_once_are_refused(method, digits, tasks):
    with pytest.raises(ValueError, match="a block must have 1 task with trained weights, got 2"):
        list(made(method, digits).stages(tasks[:2], [1], {}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExSSNeT(density=0.0), r"density must be in \(0, 1\], got 0\.0"),
        (lambda: ExSSNeT(weight_share=1.5), r"weight_share must be in \[0, 1\], got 1\.5"),
        (lambda: ExSSNeT(kappa=-1.0), r"kappa must be >= 0, got -1\.0"),
        (lambda: WSN(density=2.0), r"density must be in \(0, 1\], got 2\.0"),
    ],
)
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
