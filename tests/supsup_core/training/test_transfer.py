"""First scores that start from earlier tasks, and weights that all tasks train."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from supsup_core.baselines.lower_bound import LowerBound
from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.first_scores import uniform_bound
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.signed import Signed
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.mlp import mlp
from supsup_core.networks.units import units
from supsup_core.states.layout import TaskState
from supsup_core.training.autograd import AutogradTrainer
from supsup_core.training.batches import block_batches
from supsup_core.training.blocks import MLPTrainer
from supsup_core.training.choose import trainer_for
from supsup_core.training.recipe import Recipe
from supsup_core.training.resident import ResidentTrainer
from supsup_core.training.transfer import ROWS, Transfer, carried_shapes, order_of, source_tasks

CPU = torch.device("cpu")
NETWORK = mlp((64,), 12, hidden=[16])
RECIPE = Recipe(steps=12, batch_size=16, learning_rate=1e-2)


def made(method, data, recipe=RECIPE, network=NETWORK):
    return trainer_for(network, method, *data, recipe, seed=0)


def trained(trainer, tasks, shared=None, steps=RECIPE.steps):
    (found,) = trainer.stages(tasks, [steps], shared)
    return found


@pytest.fixture
def tasks(make_tasks):
    return make_tasks("permuted", range(4), side=8, num_classes=10, num_tasks=4)


# Sources


def test_a_block_starts_from_the_tasks_before_it():
    assert source_tasks("mean", (6, 7), 0) == source_tasks("similar", (6, 7), 0) == [*range(6)]
    assert source_tasks("last", (6, 7), 0) == [5]
    drawn = [source_tasks("random", (6, 7), seed) for seed in range(40)]
    assert {len(found) for found in drawn} == {2}
    assert {i for found in drawn for i in found} == set(range(6))
    assert source_tasks("random", (6, 7), 3) == source_tasks("random", (6, 7), 3)
    for way in ("none", "mean_scores"):
        assert source_tasks(way, (6, 7), 0) == []
    for way in ("mean", "last", "random", "similar"):
        assert source_tasks(way, (0, 1), 0) == []


def test_transfer_makes_a_sequence_of_any_finder():
    assert order_of(Threshold(), RECIPE) == "any"
    assert order_of(Threshold(), replace(RECIPE, transfer="last")) == "sequence"
    assert order_of(LowerBound(), RECIPE) == "sequence"


def test_only_what_states_do_not_hold_is_carried():
    for way in ("none", "mean", "similar", "last", "random"):
        assert carried_shapes(NETWORK, Threshold(), replace(RECIPE, transfer=way)) == {}
    sums = carried_shapes(NETWORK, Threshold(), replace(RECIPE, transfer="mean_scores"))
    assert list(sums.values()) == [(16, 64), (12, 16)]
    assert carried_shapes(NETWORK, LowerBound(), RECIPE) == {"layer1": (16, 64), "layer2": (12, 16)}


def test_an_unknown_way_of_transfer_is_refused():
    with pytest.raises(ValueError, match=r"transfer must be one of none, mean, .* got 'best'"):
        replace(RECIPE, transfer="best")


# First scores


def first_scores(method, states, way, task_id=9, network=NETWORK):
    rows = layout_of(network, method).pack(states)
    transfer = Transfer(network, method, replace(RECIPE, transfer=way), 0, CPU)
    (begun,) = transfer.starts([task_id], {ROWS: rows}, lambda: None)
    return begun


def test_each_mask_and_the_own_scores_count_equally(rng):
    masks = rng.integers(0, 2, (3, 16, 64)).astype(bool)
    states = [TaskState((mask, np.ones((12, 16), bool))) for mask in masks]
    drawn = Threshold().begin(NETWORK, 9, 0)
    bound = uniform_bound(NETWORK.tensors[0])
    found = first_scores(Threshold(), states, "mean")["layer1"]
    expected = (np.where(masks, bound, -bound).sum(axis=0) + drawn["layer1"]) / 4
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)

    found = first_scores(EdgePopup(0.3), states, "mean")["layer1"]
    expected = ((masks * bound).sum(axis=0) + np.abs(drawn["layer1"])) / 4
    np.testing.assert_allclose(np.abs(found), expected, rtol=1e-5, atol=1e-8)
    assert np.array_equal(np.signbit(found), np.signbit(drawn["layer1"]))


def test_the_own_scores_decide_where_two_masks_disagree():
    mask, rest = np.arange(1024).reshape(16, 64) % 2 == 0, np.ones((12, 16), bool)
    states = [TaskState((mask, rest)), TaskState((~mask, rest))]
    kept = first_scores(Threshold(), states, "mean")["layer1"] >= 0
    assert np.array_equal(kept, Threshold().begin(NETWORK, 9, 0)["layer1"] >= 0)


def test_masks_over_units_transfer_too():
    network = units((8, 8), 12, hidden=[128, 96])
    kept = [np.arange(t.num_gains) % 3 == 0 for t in network.tensors]
    begun = first_scores(Threshold(), [TaskState(tuple(kept))], "last", network=network)
    for tensor, mask in zip(network.tensors, kept, strict=True):
        assert np.array_equal(begun[tensor.name] >= 0, mask)


def test_the_most_similar_mask_is_the_one_that_inference_finds(digits, tasks):
    states, _ = trained(made(Threshold(), digits, replace(RECIPE, steps=60)), tasks, None, 60)
    rows = layout_of(NETWORK, Threshold()).pack(states)
    similar, last = (
        made(Threshold(), digits, replace(RECIPE, transfer=way)) for way in ("similar", "last")
    )
    for task, row in zip(tasks, rows, strict=True):
        again = replace(task, task_id=50)  # the images of this task, as a new task
        found, _ = next(similar.stages([again], [0], {ROWS: rows}))
        expected, _ = next(last.stages([again], [0], {ROWS: row[None]}))
        for one, other in zip(found[0].planes, expected[0].planes, strict=True):
            assert np.array_equal(one, other)


def test_the_first_block_and_runs_without_transfer_draw_their_scores(digits, tasks):
    plain, _ = trained(made(Threshold(), digits), tasks)
    for way in ("none", "mean", "last", "random", "similar"):
        for shared in (None, {}):
            found, carried = trained(
                made(Threshold(), digits, replace(RECIPE, transfer=way)), tasks, shared
            )
            assert carried == {}
            for one, other in zip(found, plain, strict=True):
                assert all(map(np.array_equal, one.planes, other.planes))


def test_training_side_by_side_on_a_gpu_transfers_as_on_the_cpu(digits, tasks):
    recipe, method = replace(RECIPE, transfer="mean"), Threshold()
    rows = layout_of(NETWORK, method).pack(trained(made(method, digits), tasks[:2])[0])
    given = NETWORK, method, digits[0], lambda task, state: None, recipe
    found, expected = (
        trained(kind(*given, seed=0, dtype=torch.float64, device=CPU), tasks[2:], {ROWS: rows})[0]
        for kind in (ResidentTrainer, MLPTrainer)
    )
    for one, other in zip(found, expected, strict=True):
        assert all(map(np.array_equal, one.planes, other.planes))


# The mean of scores


@pytest.mark.parametrize("method", [Threshold(), EdgePopup(0.3), Signed()])
def test_the_mean_of_scores_is_over_all_earlier_tasks(method, digits, tasks):
    recipe = replace(RECIPE, transfer="mean_scores", steps=0)
    trainer = made(method, digits, recipe)
    assert type(trainer) is AutogradTrainer
    own = [method.begin(NETWORK, i, 0) for i in range(2)]
    shared = {}
    for task in tasks[:1]:
        _, shared = trained(trainer, [task], shared, 0)
    (name,) = [name for name in shared if name.endswith("layer1")]
    np.testing.assert_array_equal(shared[name], own[0]["layer1"])
    # Without steps, task 1 ends with the mean of one score tensor, and adds it to the sum.
    _, shared = trained(trainer, [tasks[1]], shared, 0)
    np.testing.assert_array_equal(shared[name], 2 * own[0]["layer1"])
    begun = trainer._starts([tasks[2]], shared)[0]
    np.testing.assert_allclose(begun["layer1"], own[0]["layer1"], rtol=1e-6)


# Shared weights


def test_the_lower_bound_trains_the_network_itself(digits, tasks):
    trainer = made(LowerBound(), digits, replace(RECIPE, steps=60, learning_rate=1e-3))
    (state,), after = trained(trainer, tasks[:1], {}, 60)
    assert state.planes == ()
    start = NETWORK.weights(0)
    assert all(not np.array_equal(after[n], w.numpy()) for n, w in start.items())
    learnt = trainer.measure(tasks[0], state, after)
    assert learnt.accuracy > trainer.measure(tasks[0], state).accuracy + 0.2
    _, later = trained(trainer, tasks[1:2], after, 60)
    assert trainer.measure(tasks[0], state, later).loss > learnt.loss  # it forgets
    _, again = trained(trainer, tasks[1:2], after, 60)
    assert all(np.array_equal(later[name], again[name]) for name in later)


def test_weights_in_training_follow_torch(digits, tasks):
    recipe = replace(RECIPE, optimizer="sgd", learning_rate=0.1, steps=1)
    trainer = trainer_for(NETWORK, LowerBound(), *digits, recipe, seed=0, dtype=torch.float64)
    _, after = trained(trainer, tasks[:1], {}, 1)
    weights = {n: w.double().requires_grad_() for n, w in NETWORK.weights(0).items()}
    images, labels = trainer._batch(next(block_batches(tasks[:1], digits[0], recipe, 0)))
    ones = {t.name: torch.ones(t.shape, dtype=torch.float64) for t in NETWORK.tensors}
    logits = NETWORK.logits(weights, ones, images[0])
    torch.nn.functional.cross_entropy(logits, labels[0]).backward()
    for name, weight in weights.items():
        expected = (weight - 0.1 * weight.grad).detach().float().numpy()
        np.testing.assert_allclose(after[name], expected, rtol=1e-6, atol=1e-7)


def test_several_tasks_at_once_cannot_train_the_same_weights(digits, tasks):
    with pytest.raises(ValueError, match="a block must have 1 task with trained weights, got 2"):
        trained(made(LowerBound(), digits), tasks[:2], {})


def test_a_network_that_normalises_has_no_lower_bound():
    with pytest.raises(ValueError, match="the network must not normalise over a batch, got units"):
        layout_of(units((8, 8), 12, hidden=[128, 96]), LowerBound())
