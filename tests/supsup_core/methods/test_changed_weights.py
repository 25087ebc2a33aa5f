"""Tests of the finders that change the fixed weights: recycling and iterand."""

import numpy as np
import pytest
import torch

from conformance.methods import NETWORKS, OVER_WEIGHTS, MethodTests, shaped, stacked
from supsup_core.methods.biprop import Biprop, magnitude_of
from supsup_core.methods.changed_weights import flip_of
from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.iterand import IteRand
from supsup_core.methods.protocol import Progress, layout_of
from supsup_core.methods.recycling import Recycling
from supsup_core.networks.mlp import MLP
from supsup_core.training.choose import trainer_for
from supsup_core.training.recipe import Recipe

RECIPE = Recipe(steps=12, batch_size=16, learning_rate=1e-2)
NORMAL = {"magnitudes": "kaiming_normal"}
ONE = MLP("one", (6, 5))


class TestRecycling(MethodTests):
    method = Recycling(density=0.3, every=3)

    @pytest.fixture(params=OVER_WEIGHTS, ids=lambda network: network.name)
    def network(self, request):
        return request.param


class TestRecyclingOfBiprop(MethodTests):
    method = Recycling(density=0.3, every=2, rate=0.5, **NORMAL)

    @pytest.fixture
    def network(self):
        return NETWORKS["mlp"]


class TestIteRand(MethodTests):
    method = IteRand(density=0.3, every=2, probability=0.5)

    @pytest.fixture
    def network(self):
        return NETWORKS["mlp"]


def begun(method, network=ONE, num_tasks=2):
    return stacked([method.begin(network, task, 0) for task in range(num_tasks)])


def after(method, scores, step, network=ONE, steps=100, task_ids=(0, 1)):
    with torch.no_grad():
        method.after_step(network, scores, None, Progress(step, steps, task_ids, 0))
    return scores


def keep_planes(method, data, tasks):
    """Train, and return the keep planes of all tasks, and whether any weight changed its sign."""
    network = NETWORKS["mlp"]
    trainer = trainer_for(
        network, method, *shaped(data, network), RECIPE, seed=0, dtype=torch.float64
    )
    ((states, _),) = trainer.stages(tasks, [RECIPE.steps])
    roles = [plane.spec.role for plane in layout_of(network, method).planes]
    found = {"keep": [], "negative": []}
    for state in states:
        for role, plane in zip(roles, state.planes, strict=True):
            found[role].append(plane.ravel())
    negative = bool(found["negative"]) and bool(np.concatenate(found["negative"]).any())
    return np.concatenate(found["keep"]), negative


@pytest.mark.parametrize(
    ("method", "plain"),
    [
        (Recycling(0.3, rate=0.0, every=2), EdgePopup(0.3)),
        (Recycling(0.3, rate=0.0, every=2, **NORMAL), Biprop(0.3, **NORMAL)),
        (Recycling(0.3, every=RECIPE.steps), EdgePopup(0.3)),  # nothing follows the last step
        (IteRand(0.3, probability=0.0, every=2), EdgePopup(0.3)),
    ],
)
def test_without_changes_the_masks_are_those_of_the_plain_rule(method, plain, digits, make_tasks):
    tasks = make_tasks("permuted", side=8, num_classes=10)
    kept, negative = keep_planes(method, digits, tasks)
    assert not negative
    assert np.array_equal(kept, keep_planes(plain, digits, tasks)[0])


@pytest.mark.parametrize("method", [Recycling(0.3, every=2), IteRand(0.3, every=2)])
def test_with_changes_the_masks_are_others(method, digits, make_tasks):
    tasks = make_tasks("permuted", side=8, num_classes=10)
    kept, negative = keep_planes(method, digits, tasks)
    assert negative
    assert not np.array_equal(kept, keep_planes(EdgePopup(0.3), digits, tasks)[0])


def test_the_lowest_scores_get_the_weights_of_the_highest_in_order():
    method = Recycling(rate=0.2, every=5, **NORMAL)
    fixed = ONE.weights(0)["layer1"].sign().flatten()
    scores = begun(method)
    before = {name: score.detach().clone() for name, score in scores.items()}
    after(method, scores, 5)
    for b in range(2):
        order = before["layer1"][b].abs().flatten().argsort().tolist()
        signs = fixed * (1 - 2 * scores[flip_of("layer1")][b].flatten().float())
        sizes = scores[magnitude_of("layer1")][b].detach().flatten()
        old = before[magnitude_of("layer1")][b].flatten()
        for low, high in zip(order[:6], order[-6:], strict=True):
            assert signs[low] == fixed[high]
            assert sizes[low] == old[high]
        rest = order[6:]
        assert torch.equal(signs[rest], fixed[rest])
        assert torch.equal(sizes[rest], old[rest])
    assert torch.equal(scores["layer1"], before["layer1"])


def test_recycled_weights_are_recycled_again():
    method = Recycling(rate=0.5, every=1)
    fixed = ONE.weights(0)["layer1"].sign().flatten()
    scores = begun(method, num_tasks=1)
    after(method, scores, 1, task_ids=[0])
    first = fixed * (1 - 2 * scores[flip_of("layer1")].flatten().float())
    with torch.no_grad():  # the lower half becomes the upper half
        scores["layer1"].copy_(1 / scores["layer1"])
    after(method, scores, 2, task_ids=[0])
    order = scores["layer1"].detach().abs().flatten().argsort()
    second = fixed * (1 - 2 * scores[flip_of("layer1")].flatten().float())
    assert torch.equal(second[order[:15]], first[order[-15:]])


@pytest.mark.parametrize("method", [Recycling(every=5), IteRand(every=5)])
def test_weights_change_only_when_the_interval_has_passed_and_steps_follow(method):
    for step, changes in [(4, False), (5, True), (6, False), (20, False)]:
        scores = after(method, begun(method), step, steps=20)
        assert bool(scores[flip_of("layer1")].any()) == changes


def test_dropped_weights_are_drawn_again_with_the_probability():
    network, method = MLP("wide", (200, 300)), IteRand(0.4, every=1, probability=0.3, **NORMAL)
    scores = begun(method, network)
    old = scores[magnitude_of("layer1")].detach().clone()
    after(method, scores, 1, network)
    kept = method.masks(network, scores, 0.4)["layer1"]
    changed = scores[magnitude_of("layer1")].detach() != old
    flips = scores[flip_of("layer1")]
    assert not (changed | flips)[kept].any()
    assert changed[~kept].double().mean().item() == pytest.approx(0.3, abs=0.01)
    assert flips[changed].double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert not (flips & ~changed).any()


def test_redraws_depend_on_task_and_step_but_not_on_the_block():
    method = IteRand(every=1, probability=0.5)
    together = after(method, begun(method), 3)[flip_of("layer1")]
    alone = stacked([method.begin(ONE, 1, 0)])
    after(method, alone, 3, task_ids=[1])
    assert torch.equal(alone[flip_of("layer1")][0], together[1])
    later = after(method, begun(method), 4)[flip_of("layer1")]
    assert not torch.equal(later, together)


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"rate must be in \[0, 0\.5\], got 0\.6"):
        Recycling(rate=0.6)
    with pytest.raises(ValueError, match=r"every must be >= 1, got 0"):
        Recycling(every=0)
    with pytest.raises(ValueError, match=r"probability must be in \[0, 1\], got 1\.5"):
        IteRand(probability=1.5)
