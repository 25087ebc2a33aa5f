"""A trunk that task 0 trains, and that all later tasks keep."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from supsup_core.baselines.batche import BatchE
from supsup_core.baselines.own_weights import Heads
from supsup_core.methods.protocol import layout_of
from supsup_core.networks.conv import small_conv
from supsup_core.networks.mlp import mlp
from supsup_core.networks.module import as_network
from supsup_core.states.choose import stored_states
from supsup_core.training.choose import trainer_for
from supsup_core.training.recipe import Recipe

CPU = torch.device("cpu")
NETWORK = mlp((64,), 12, hidden=[48, 32])
RECIPE = Recipe(steps=120, batch_size=64, learning_rate=1e-2, optimizer="adam", momentum=0.9)
# What each baseline shares, and the floats that a task stores on NETWORK.
SHARED = {BatchE: ["layer1", "layer2", "layer3"], Heads: ["layer1", "layer2"]}
NUM_FLOATS = {BatchE: 64 + 48 + 48 + 32 + 32 + 12, Heads: 32 * 12}
KINDS = pytest.mark.parametrize("kind", SHARED)


def made(method, digits, recipe=RECIPE):
    return trainer_for(NETWORK, method, *digits, recipe, seed=0)


@pytest.fixture
def tasks(make_tasks):
    return make_tasks("permuted", range(4), side=8, num_classes=10, num_tasks=4)


def trained(trainer, tasks, steps, shared=None):
    (found,) = trainer.stages(tasks, [steps], shared)
    return found


@KINDS
def test_only_the_first_task_trains_and_passes_on_the_trunk(kind, digits, tasks):
    method, fixed = kind(trunk="trained"), NETWORK.weights(0)
    assert (method.order, kind().order) == ("after_first", "any")
    trainer = made(method, digits)
    _, trunk = trained(trainer, tasks[:1], 3, {})
    assert list(trunk) == list(method.shared_shapes(NETWORK)) == SHARED[kind]
    for name, weights in trunk.items():
        assert weights.dtype == np.float32
        assert not np.array_equal(weights, fixed[name].numpy())
    kept = {name: weights.copy() for name, weights in trunk.items()}
    _, passed = trained(trainer, tasks[1:3], 3, trunk)
    assert passed == {}
    assert all(np.array_equal(kept[name], trunk[name]) for name in kept)


@KINDS
def test_a_later_task_trains_and_is_measured_with_the_trunk_of_the_first_task(kind, digits, tasks):
    method = kind(trunk="trained")
    trainer = made(method, digits)
    _, trunk = trained(trainer, tasks[:1], 120, {})
    (state,), _ = trained(trainer, tasks[1:2], 120, trunk)
    # The same training with a network whose fixed weights are the trunk.
    layout, test, task = layout_of(NETWORK, method), digits[1], tasks[1]
    gains = stored_states(layout, layout.pack([state]), CPU).gains(0)
    weights = NETWORK.weights(0) | {n: torch.from_numpy(w) for n, w in trunk.items()}
    shown = torch.from_numpy(task.images(test.images)).float() / 255
    logits = NETWORK.logits(weights, gains, (shown - test.mean[0]) / test.std[0])
    right = (logits.argmax(dim=1).numpy() == test.labels).mean()
    assert trainer.measure(task, state, trunk).accuracy == pytest.approx(right)
    assert right > 0.4  # chance gives 0.1
    assert trainer.measure(task, state).accuracy < right - 0.1  # the fixed weights do not fit


@KINDS
def test_later_tasks_together_are_as_one_by_one(kind, digits, make_tasks):
    tasks = make_tasks("split", range(4), side=8, num_classes=10, num_tasks=5)
    trainer = made(kind(trunk="trained"), digits, replace(RECIPE, steps=5))
    _, trunk = trained(trainer, tasks[:1], 5, {})
    together, _ = trained(trainer, tasks[1:], 5, trunk)
    for task, state in zip(tasks[1:], together, strict=True):
        (alone,), _ = trained(trainer, [task], 5, trunk)
        for name, values in alone.floats.items():
            np.testing.assert_allclose(values, state.floats[name], rtol=1e-4, atol=1e-5)


@KINDS
def test_a_row_is_the_same_with_both_trunks(kind):
    layout = layout_of(NETWORK, kind(trunk="trained"))
    assert layout == layout_of(NETWORK, kind())
    assert 4 * NUM_FLOATS[kind] < layout.row_bytes <= 4 * NUM_FLOATS[kind] + 64


def test_a_trained_trunk_makes_better_heads(digits, make_tasks):
    # The heads of a trunk for unpermuted digits learn to tell other classes of digits apart.
    tasks = make_tasks("split", (0, 1, 2, 3), side=8, num_classes=10, num_tasks=5)
    small, found = mlp((64,), 12, hidden=[24, 6]), []
    for trunk in ("trained", "random"):
        trainer = trainer_for(small, Heads(trunk=trunk), *digits, RECIPE, seed=0)
        states, shared = trained(trainer, tasks[:1], 80, {})
        later, _ = trained(trainer, tasks[1:], 80, shared)
        pairs = zip(tasks, states + later, strict=True)
        found.append([trainer.measure(task, state, shared).loss for task, state in pairs])
    assert sum(found[0]) < sum(found[1])


def test_task_0_may_have_a_learning_rate_of_its_own(digits, tasks):
    method, slow = BatchE(trunk="trained"), replace(RECIPE, first_learning_rate=1e-4, steps=1)
    begun = method.begin(NETWORK, 0, 0)
    _, trunk = trained(made(method, digits, slow), tasks[:1], 1, {})
    # The first step of Adam changes each weight by the learning rate.
    largest = max(np.abs(trunk[name] - begun[name]).max() for name in trunk)
    assert largest == pytest.approx(1e-4, rel=1e-2)
    (state,), _ = trained(made(method, digits, slow), tasks[1:2], 1, trunk)
    start = method.begin(NETWORK, 1, 0, trunk)
    assert start.keys() == state.floats.keys()
    largest = max(np.abs(state.floats[name] - start[name]).max() for name in start)
    assert largest == pytest.approx(1e-2, rel=1e-2)
    with pytest.raises(ValueError, match=r"first_learning_rate must be > 0 or None, got -1\.0"):
        replace(RECIPE, first_learning_rate=-1.0)


def test_a_trunk_with_batch_normalisation_is_trained_too(digits, make_tasks):
    images = (1, 8, 8)
    network = as_network("conv", small_conv(images, 12, channels=[8, 8]), images)
    data = [replace(d, images=d.images.reshape(-1, *images)) for d in digits]
    tasks = make_tasks("split", (0, 1), side=8, num_classes=10, num_tasks=5, renumber=True)
    method = BatchE(trunk="trained")
    trainer = trainer_for(network, method, *data, RECIPE, seed=0)
    _, trunk = trained(trainer, tasks[:1], 120, {})
    (state,), _ = trained(trainer, tasks[1:], 120, trunk)
    assert trainer.measure(tasks[1], state, trunk).accuracy > 0.75  # chance gives 0.5


def test_an_unknown_trunk_is_refused():
    with pytest.raises(ValueError, match="trunk must be one of random, trained, got other"):
        Heads(trunk="other")
