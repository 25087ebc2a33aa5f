"""Masks in a dense base: the base is trained without a mask, and the masks change slowly."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from conformance.methods import CPU, NETWORKS, SLIM, MethodTests, assert_same_planes, shaped
from supsup_core.methods.jackpots import Jackpots, swap
from supsup_core.methods.planes import top_share
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.trained_weights import WEIGHTS
from supsup_core.networks.mlp import mlp
from supsup_core.networks.units import units
from supsup_core.states.choose import stored_states
from supsup_core.training.choose import trainer_for
from supsup_core.training.descent import Descent
from supsup_core.training.recipe import Recipe

NETWORK = mlp((64,), 12, hidden=[48, 32], init="kaiming_normal")
STEPS = 120
RECIPE = Recipe(STEPS, 64, learning_rate=1e-2, optimizer="adam", momentum=0.9, decay="cosine")
HALF = STEPS // 2  # with base_share=0.5


class TestJackpots(MethodTests):
    method = Jackpots(density=0.3)

    @pytest.fixture(params=[NETWORKS["mlp"], SLIM], ids=["mlp", "resnet"])
    def network(self, request):
        return request.param


class TestJackpotsOfRandomWeights(MethodTests):
    method = Jackpots(density=0.3, base_share=0.0)

    @pytest.fixture(params=[NETWORKS["mlp"]], ids=["mlp"])
    def network(self, request):
        return request.param


@pytest.fixture
def tasks(make_tasks):
    return make_tasks("permuted", range(3), side=8, num_classes=10, num_tasks=3)


def made(method, digits, recipe=RECIPE, network=NETWORK, dtype=torch.float32):
    return trainer_for(network, method, *shaped(digits, network), recipe, seed=0, dtype=dtype)


def largest(network, weights, density):
    """Return the masks of the largest magnitudes."""
    return [
        top_share(torch.from_numpy(np.abs(weights[t.source]))[None], round(density * t.num_gains))
        for t in network.tensors
    ]


# The base


def test_the_base_is_trained_without_a_mask_and_then_stays(digits, tasks):
    trainer = made(Jackpots(), digits)
    stages = trainer.stages(tasks[:1], [0, HALF - 1, HALF, STEPS], {})
    (begun, fixed), (last, _), (first, base), (_, after) = stages
    for state in (*begun, *last):
        assert all(plane.all() for plane in state.planes)
    assert_same_planes(first[0], replace(first[0], planes=_planes(largest(NETWORK, base, 0.1))))
    for name, weights in NETWORK.weights(0).items():
        assert np.array_equal(fixed[name], weights.numpy())
        assert not np.array_equal(base[name], fixed[name])
        assert np.array_equal(base[name], after[name])


def _planes(masks):
    return tuple(mask[0].numpy() for mask in masks)


def test_later_tasks_search_in_the_base_of_task_0_and_leave_it_as_it_is(digits, make_tasks):
    # Permuted tasks that are trained together share their batches, and tasks of a split do not.
    tasks = make_tasks("split", range(3), side=8, num_classes=10, num_tasks=5)
    # In float32, products of one task and of several tasks round differently.
    trainer = made(Jackpots(), digits, replace(RECIPE, steps=20), dtype=torch.float64)
    ((_, base),) = trainer.stages(tasks[:1], [20], {})
    kept = {name: weights.copy() for name, weights in base.items()}
    (begun, _), (found, passed) = trainer.stages(tasks[1:], [0, 20], base)
    assert passed == {}
    assert all(np.array_equal(base[name], weights) for name, weights in kept.items())
    for state, later in zip(begun, found, strict=True):
        assert_same_planes(state, replace(state, planes=_planes(largest(NETWORK, base, 0.1))))
        changes = [one != other for one, other in zip(state.planes, later.planes, strict=True)]
        assert any(map(np.any, changes))
        assert [plane.sum() for plane in later.planes] == [plane.sum() for plane in state.planes]
    for task, state in zip(tasks[1:], found, strict=True):
        (((alone,), _),) = trainer.stages([task], [20], base)
        assert_same_planes(alone, state)


def test_the_search_makes_a_pruned_base_more_accurate(digits, tasks):
    # In the small network of the other tests, too few weights remain to be as accurate as the base.
    network = mlp((64,), 12, hidden=[300, 100], init="kaiming_normal")
    trainer = made(Jackpots(density=0.2), digits, network=network)
    ((pruned,), _), ((state,), base) = trainer.stages(tasks[:1], [HALF, STEPS], {})
    before, after = (trainer.measure(tasks[0], one, base) for one in (pruned, state))
    assert after.base_accuracy == before.base_accuracy > 0.9
    assert before.accuracy + 0.1 < after.accuracy > after.base_accuracy - 0.01


def test_the_base_is_measured_without_a_mask(digits, tasks):
    trainer, test = made(Jackpots(), digits), digits[1]
    (((state,), base),) = trainer.stages(tasks[:1], [STEPS], {})
    found = trainer.measure(tasks[1], state, base).base_accuracy
    x = (torch.from_numpy(tasks[1].images(test.images)).float() / 255 - test.mean[0]) / test.std[0]
    ones = {t.name: torch.ones(t.shape) for t in NETWORK.tensors}
    weights = {name: torch.from_numpy(values) for name, values in base.items()}
    right = NETWORK.logits(weights, ones, x.reshape(-1, 64)).argmax(dim=1).numpy() == test.labels
    assert found == pytest.approx(right.mean())


def test_a_slim_resnet_has_a_base_too(digits, make_tasks):
    tasks = make_tasks("split", range(3), side=8, num_classes=10)
    method, recipe = Jackpots(density=0.3), replace(RECIPE, steps=6, batch_size=8)
    trainer = made(method, digits, recipe, SLIM)
    (((first,), base),) = trainer.stages(tasks[:1], [6], {})
    ((found, _),) = trainer.stages(tasks[1:], [6], base)
    layout = layout_of(SLIM, method)
    stored = stored_states(layout, layout.pack([first, *found]), CPU)
    for tensor in SLIM.tensors:
        kept = [int(stored.gains(i)[tensor.name].sum()) for i in range(3)]
        assert kept == [method.num_kept(tensor)] * 3
    measured = trainer.measure(tasks[1], found[0], base)
    assert 0 <= measured.base_accuracy <= 1
    assert np.isfinite(measured.loss)


def test_without_a_base_tasks_are_trained_in_any_order():
    method = Jackpots(base_share=0.0)
    assert (method.order, method.has_base) == ("any", False)
    assert (Jackpots().order, Jackpots().has_base) == ("after_first", True)
    assert method.shared_shapes(NETWORK) == {}


def test_equal_magnitudes_are_ordered_at_random():
    network = mlp((64,), 12, hidden=[40])  # all magnitudes of a layer are equal
    kept = Jackpots(base_share=0.0).begin(network, 0, 0)["layer1.kept"]
    assert kept.sum() == 256
    assert (kept.sum(axis=1) > 0).sum() > 30  # not whole units first


# Learning rates


def test_the_base_and_the_search_have_learning_rates_of_their_own(rng):
    # The first step of Adam changes each number by the learning rate.
    recipe = replace(RECIPE, steps=4, learning_rate=1e-3, first_learning_rate=1e-2)
    images = torch.from_numpy(rng.standard_normal((1, 16, 64), np.float32))
    labels, layer, base = torch.arange(16)[None] % 10, "layer1", WEIGHTS + "layer1"

    def largest_changes(task_id, shared):
        starts = [Jackpots().begin(NETWORK, task_id, 0, shared)]
        given = NETWORK, Jackpots(), recipe, NETWORK.weights(0), starts, shared
        descent = Descent(*given, task_ids=[task_id], seed=0)
        for step in range(4):
            before = {name: scores.detach().clone() for name, scores in descent.scores.items()}
            descent.step(step, images, labels)
            pairs = ((n, s.detach().float() - before[n].float()) for n, s in descent.scores.items())
            yield {name: float(change.abs().max()) for name, change in pairs}

    of_base, _, of_search, _ = largest_changes(0, None)
    assert (of_base[layer], of_base[base]) == (0, pytest.approx(1e-2, rel=1e-2))
    assert (of_search[layer], of_search[base]) == (pytest.approx(1e-3, rel=1e-2), 0)
    trained = {name: weights.numpy() for name, weights in NETWORK.weights(0).items()}
    assert next(largest_changes(1, trained))[layer] == pytest.approx(1e-3, rel=1e-2)


# Short restriction


def swapped(kept, scores, num_kept, share):
    kept = torch.tensor(kept, dtype=torch.bool)
    swap(kept, torch.tensor(scores), num_kept, share)
    return kept.int().tolist()


def test_the_best_newcomers_replace_the_worst_members():
    kept, scores = [[1, 1, 1, 1, 0, 0, 0, 0]], [[9.0, 1.0, 3.0, 2.0, 8.0, 6.0, 7.0, 0.0]]
    expected = {
        0.0: [1, 1, 1, 1, 0, 0, 0, 0],
        0.1: [1, 0, 1, 1, 1, 0, 0, 0],  # one of three changes
        0.5: [1, 0, 1, 0, 1, 0, 1, 0],
        1.0: [1, 0, 0, 0, 1, 1, 1, 0],
    }
    for share, mask in expected.items():
        assert swapped(kept, scores, 4, share) == [mask]


def test_each_task_makes_its_own_share_of_changes(rng):
    scores = torch.from_numpy(rng.standard_normal((3, 6, 50), np.float32))
    kept = top_share(torch.from_numpy(rng.standard_normal((3, 6, 50), np.float32)), 60)
    before, wanted = kept.clone(), top_share(scores, 60)
    swap(kept, scores, 60, 0.25)
    for b in range(3):
        asked = int((wanted[b] & ~before[b]).sum())
        entered, left = kept[b] & ~before[b], before[b] & ~kept[b]
        assert entered.sum() == left.sum() == -(-asked // 4)
        assert not (entered & ~wanted[b]).any()
        assert not (left & wanted[b]).any()
        waiting = wanted[b] & ~before[b] & ~entered
        assert scores[b][entered].min() >= scores[b][waiting].max()
    swap(kept, scores, 60, 1.0)
    assert torch.equal(kept, wanted)


def test_a_restricted_mask_changes_less(digits, tasks):
    changed = []
    for restriction in (0.0, 4.0):
        recipe = replace(RECIPE, decay="none")
        trainer = made(Jackpots(restriction=restriction), digits, recipe)
        after = range(STEPS - 15, STEPS + 1)  # a quarter of the search
        masks = [state.planes[0] for (state,), _ in trainer.stages(tasks[:1], after, {})]
        changed.append([int((b & ~a).sum()) for a, b in pairwise(masks)])
    free, restricted = changed
    assert sum(restricted) < sum(free) / 2
    assert restricted[-1] == 0  # the share after the last step is 0


# What does not fit


def test_gains_over_units_are_refused():
    with pytest.raises(ValueError, match=r"gains over weights .* units of units1"):
        layout_of(units((8, 8), 12, hidden=[16]), Jackpots())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.0}, r"density must be in \(0, 1\], got 0\.0"),
        ({"base_share": 1.5}, r"base_share must be in \[0, 1\], got 1\.5"),
        ({"restriction": -1.0}, r"restriction must be >= 0, got -1\.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Jackpots(**options)
