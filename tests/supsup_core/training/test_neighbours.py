"""The choice of an earlier state by the nearest neighbours of a new task's features."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from supsup_core.methods.iterand import IteRand
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.mlp import mlp
from supsup_core.states.choose import stored_states
from supsup_core.states.layout import TaskState
from supsup_core.training.batches import block_batches
from supsup_core.training.choose import trainer_for
from supsup_core.training.neighbours import accuracy_of_neighbours, best_by_neighbours
from supsup_core.training.recipe import Recipe
from supsup_core.training.transfer import ROWS

CPU = torch.device("cpu")
NETWORK = mlp((64,), 12, hidden=[24])
RECIPE = Recipe(steps=60, batch_size=32, learning_rate=1e-2, transfer="knn")


@pytest.fixture
def tasks(make_tasks):
    return make_tasks("permuted", range(4), side=8, num_classes=10, num_tasks=4)


def trained_rows(digits, tasks):
    """Train masks on some tasks without transfer, and return their packed rows."""
    trainer = trainer_for(NETWORK, Threshold(), *digits, replace(RECIPE, transfer="none"), seed=0)
    ((states, _),) = trainer.stages(tasks, [RECIPE.steps])
    return layout_of(NETWORK, Threshold()).pack(states)


def test_classes_that_lie_apart_are_all_found():
    labels = torch.arange(90) % 3
    places = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    noise = torch.randn(90, 2, generator=torch.Generator().manual_seed(0))
    assert accuracy_of_neighbours(places[labels] + 0.1 * noise, labels) == 1.0
    assert accuracy_of_neighbours(noise, labels) < 0.6  # chance is 1/3


def test_the_label_is_that_of_most_neighbours():
    # Of 8 references, 4 have each label, so an image asks 4 neighbours.
    references = torch.tensor([0.0, 0.1, 0.2, 0.3, 9.0, 9.1, 9.2, 0.15])
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    others, truth = torch.tensor([0.12, 9.1, 0.12, 9.1]), torch.tensor([0, 1, 1, 1])
    features = torch.cat([references, others])[:, None]
    assert accuracy_of_neighbours(features, torch.cat([labels, truth])) == 0.75


def test_a_state_that_is_no_better_than_chance_is_not_chosen():
    planes = tuple(np.zeros(tensor.shape, bool) for tensor in NETWORK.tensors)
    layout = layout_of(NETWORK, Threshold())
    states = stored_states(layout, layout.pack([TaskState(planes)] * 2), CPU)
    images, labels = torch.randn(60, 64), torch.arange(60) % 2  # all features are 0
    assert best_by_neighbours(NETWORK, NETWORK.weights(0), states, images, labels) is None
    assert best_by_neighbours(NETWORK, NETWORK.weights(0), states, images[:1], labels[:1]) is None


def test_the_mask_of_the_same_images_is_chosen(digits, tasks):
    rows = trained_rows(digits, tasks)
    knn, last = (
        trainer_for(NETWORK, Threshold(), *digits, replace(RECIPE, transfer=way), seed=0)
        for way in ("knn", "last")
    )
    for task, row in zip(tasks, rows, strict=True):
        again = replace(task, task_id=50)  # the images of this task, as a new task
        (found,), _ = next(knn.stages([again], [0], {ROWS: rows}))
        (expected,), _ = next(last.stages([again], [0], {ROWS: row[None]}))
        assert all(map(np.array_equal, found.planes, expected.planes))


def test_each_task_of_a_block_gets_the_mask_that_it_gets_alone(digits, tasks):
    rows = trained_rows(digits, tasks[:2])
    trainer = trainer_for(NETWORK, Threshold(), *digits, RECIPE, seed=0)
    together = trainer._starts(tasks[2:], {ROWS: rows})
    # Both tasks see the images of the block, which the number of its first task chooses.
    alone = trainer._starts(tasks[2:3], {ROWS: rows})
    assert len(together) == 2
    for name, scores in alone[0].items():
        assert np.array_equal(together[0][name], scores)


@pytest.mark.parametrize(
    ("share", "at_most", "num_images"), [(0.0, 0, 32), (0.2, 5000, 288), (0.2, 100, 128)]
)
def test_the_first_images_are_those_of_the_first_steps(share, at_most, num_images, digits, tasks):
    trainer = trainer_for(NETWORK, Threshold(), *digits, RECIPE, seed=0)
    images, labels = trainer._first_images(tasks[:2], share, at_most)
    assert images.shape == (2, num_images, 64)
    first = next(block_batches(tasks[:2], digits[0], RECIPE, 0))
    expected, classes = trainer_for(NETWORK, IteRand(), *digits, RECIPE, seed=0)._batch(first)
    assert torch.equal(images[:, :32], expected)
    assert torch.equal(labels[:, :32], classes)
