"""Tests that every finder must pass whose tasks train weights that all tasks share, in sequence.

The tests of a new finder are a subclass of SharedWeightsTests with the attribute `method`.
"""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from conformance.states import assert_equal
from supsup_core.data import ImageSet
from supsup_core.methods.protocol import layout_of
from supsup_core.networks.mlp import mlp
from supsup_core.networks.module import as_network
from supsup_core.states.choose import stored_states
from supsup_core.training.choose import trainer_for
from supsup_core.training.recipe import Recipe

CPU = torch.device("cpu")


def _conv():
    """Make a convolutional network that does not normalise."""
    layers = [
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 12, bias=False),
    ]
    return as_network("conv", nn.Sequential(*layers), (1, 8, 8))


NETWORKS = {"mlp": mlp((8, 8), 12, hidden=[32, 16]), "conv": _conv()}
BRIEF = Recipe(steps=8, batch_size=16, learning_rate=1e-3)


def as_tensors(arrays):
    return {name: torch.from_numpy(values) for name, values in arrays.items()}


def assert_same(one, other):
    """Check that two mappings have the same arrays, bit for bit."""
    assert one.keys() == other.keys()
    assert all(np.array_equal(values, other[name]) for name, values in one.items())


class SharedWeightsTests:
    method = None  # the finder; the subclass sets this attribute
    recipe = Recipe(steps=100, batch_size=64, learning_rate=1e-3)  # enough to tell digits apart

    @pytest.fixture(params=NETWORKS.values(), ids=NETWORKS)
    def network(self, request):
        return request.param

    @pytest.fixture
    def tasks(self, make_tasks):
        return make_tasks("split", side=8, num_classes=10)

    @pytest.fixture
    def made(self, network, digits):
        """A function that makes the trainer of a recipe."""
        data = [
            ImageSet(d.images.reshape(-1, *network.input_shape), d.labels, d.mean, d.std)
            for d in digits
        ]
        return lambda recipe: trainer_for(network, self.method, *data, recipe, seed=0)

    def trained(self, trainer, tasks, recipe, shared=None):
        """Train tasks in sequence; return the state and the shared data after each task."""
        found = []
        for task in tasks:
            (((state,), shared),) = trainer.stages([task], [recipe.steps], shared)
            found.append((state, shared))
        return found

    # One task

    def test_the_first_task_starts_from_the_fixed_weights(self, network):
        begun, fixed = self.method.begin(network, 0, 3), network.weights(3)
        weights = self.method.trained_weights(network, {n: s[None] for n, s in fixed.items()})
        assert set(weights) == set(self.method.shared_shapes(network)) <= set(begun)
        for name in weights:
            assert begun[name].dtype == np.float32
            assert np.array_equal(begun[name], fixed[name].numpy())
            assert not np.shares_memory(begun[name], fixed[name].numpy())

    def test_a_later_task_starts_from_the_weights_after_the_previous_task(self, network):
        shapes = self.method.shared_shapes(network)
        shared = {name: np.full(shape, 0.5, np.float32) for name, shape in shapes.items()}
        begun = self.method.begin(network, 4, 0, shared)
        assert_same({name: begun[name] for name in shapes}, shared)
        assert not any(np.shares_memory(begun[name], shared[name]) for name in shapes)

    def test_a_task_has_the_same_weights_each_time(self, network):
        shared, other = network.weights(0), network.weights(1)
        one = self.method.weights_of_task(network, 5, 3)
        again = self.method.weights_of_task(network, 5, 3)
        assert_equal(one(shared), again(shared))
        one(other)  # a call leaves nothing behind
        assert_equal(one(shared), again(shared))

    def test_tasks_and_seeds_have_weights_of_their_own_if_the_finder_says_so(self, network):
        shared = network.weights(0)
        one, *others = (
            self.method.weights_of_task(network, task, seed)(shared)
            for task, seed in [(5, 3), (6, 3), (5, 4)]
        )
        for other in others:
            differ = any(not torch.equal(one[name], other[name]) for name in one)
            assert differ == bool(self.method.weights_rule)

    def test_the_weights_of_a_task_keep_shapes_and_types(self, network):
        of_task = self.method.weights_of_task(network, 1, 0)
        for dtype in (torch.float64, torch.float32):
            shared = {name: weight.to(dtype) for name, weight in network.weights(0).items()}
            for name, weight in of_task(shared).items():
                assert (weight.shape, weight.dtype) == (shared[name].shape, dtype)

    def test_the_loss_has_a_gradient_in_all_shared_weights(self, network):
        scores = as_tensors({n: s[None] for n, s in self.method.begin(network, 1, 0).items()})
        scores = {name: score.requires_grad_() for name, score in scores.items()}
        trained = self.method.trained_weights(network, scores)
        weights = network.weights(0) | dict(self.method.weights_of_task(network, 1, 0)(trained))
        gains = {name: gain[0] for name, gain in self.method.gains(network, scores).items()}
        images = torch.randn(5, *network.input_shape, generator=torch.Generator().manual_seed(0))
        network.logits(weights, gains, images).square().sum().backward()
        assert all(scores[name].grad.any() for name in trained)

    def test_a_state_comes_back_from_its_row(self, network):
        layout = layout_of(network, self.method)
        scores = as_tensors({n: s[None] for n, s in self.method.begin(network, 2, 0).items()})
        rows = layout.pack(self.method.end(network, scores))
        gains = {name: gain[0] for name, gain in self.method.gains(network, scores).items()}
        assert_equal(stored_states(layout, rows, CPU).gains(0), gains)

    def test_a_finder_that_was_pickled_is_the_same_finder(self, network):
        again = pickle.loads(pickle.dumps(self.method))
        shared = network.weights(0)
        made = [method.weights_of_task(network, 2, 0)(shared) for method in (self.method, again)]
        assert_equal(*made)
        assert again.weights_rule == self.method.weights_rule

    # Training in sequence

    def test_each_task_is_learnt_and_changes_the_shared_weights(self, network, tasks, made):
        trainer = made(self.recipe)
        found = self.trained(trainer, tasks, self.recipe)
        before = {name: weight.numpy() for name, weight in network.weights(0).items()}
        shapes = self.method.shared_shapes(network)
        for task, (state, after) in zip(tasks, found, strict=True):
            assert {name: values.shape for name, values in after.items()} == shapes
            assert all(values.dtype == np.float32 for values in after.values())
            assert all(not np.array_equal(after[name], before[name]) for name in shapes)
            learnt, begun = (trainer.measure(task, state, one) for one in (after, before))
            assert learnt.loss < begun.loss
            assert learnt.accuracy > 0.75  # chance gives 0.5 for two digits
            before = after

    def test_a_sequence_continues_from_the_shared_data_bit_for_bit(self, tasks, made):
        whole = self.trained(made(BRIEF), tasks, BRIEF)
        (_, shared), *_ = self.trained(made(BRIEF), tasks[:1], BRIEF)
        kept = {name: values.copy() for name, values in shared.items()}
        rest = self.trained(made(BRIEF), tasks[1:], BRIEF, kept)
        assert_same(shared, kept)  # training does not change the data that it gets
        for (_, one), (_, other) in zip(whole[1:], rest, strict=True):
            assert_same(one, other)

    def test_a_state_is_measured_with_the_weights_of_its_task(self, network, tasks, made, digits):
        trainer = made(replace(BRIEF, steps=1))
        ((state, after), *_) = self.trained(trainer, tasks[1:2], replace(BRIEF, steps=1))
        weights = network.weights(0) | as_tensors(after)
        weights |= dict(self.method.weights_of_task(network, 1, 0)(as_tensors(after)))
        layout = layout_of(network, self.method)
        gains = stored_states(layout, layout.pack([state]), CPU).gains(0)
        test = digits[1]
        members = tasks[1].members(test.labels)
        pixels = torch.from_numpy(test.images[members]).float() / 255
        shown = ((pixels - test.mean[0]) / test.std[0]).reshape(-1, *network.input_shape)
        chosen = network.logits(weights, gains, shown).argmax(dim=1).numpy()
        right = chosen == tasks[1].labels(test.labels[members])
        assert trainer.measure(tasks[1], state, after).accuracy == pytest.approx(right.mean())

    def test_several_tasks_at_once_cannot_train_the_same_weights(self, tasks, made):
        with pytest.raises(ValueError, match="a block must have 1 task with trained weights"):
            next(made(BRIEF).stages(tasks[:2], [1]))
