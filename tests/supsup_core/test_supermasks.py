"""Masks over one's own module, learnt from one's own batches."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from supsup_core import MaskedModel, Supermasks
from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.exssnet import ExSSNeT
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.mlp import mlp
from supsup_core.training.recipe import Recipe


def module() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 96, bias=False),
        nn.ReLU(),
        nn.Linear(96, 96, bias=False),
        nn.ReLU(),
        nn.Linear(96, 12, bias=False),
    )


@pytest.fixture(scope="module")
def tasks():
    """Normalised digits, with other pixels in each of three tasks: pairs of images and labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy((digits.images / 16 - 0.3) / 0.4).float()
    orders = [np.random.default_rng(i).permutation(64) for i in range(3)]
    shown = [images.flatten(1)[:, torch.from_numpy(order)].reshape(-1, 8, 8) for order in orders]
    return [(one, torch.from_numpy(digits.target)) for one in shown]


def loader(task) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    return DataLoader(TensorDataset(*task), batch_size=64, shuffle=True, generator=generator)


@pytest.fixture(scope="module")
def learnt(tasks):
    masks = Supermasks(module(), (8, 8), EdgePopup(density=0.5), num_real=10)
    assert [masks.learn(loader(task), steps=150, learning_rate=0.01) for task in tasks] == [0, 1, 2]
    return masks


def test_each_mask_solves_its_task(learnt, tasks):
    for i, (images, labels) in enumerate(tasks):
        model = learnt.model(i)
        assert isinstance(model, MaskedModel)
        with torch.no_grad():
            assert (model(images).argmax(dim=1) == labels).float().mean() > 0.95
            other = learnt.model((i + 1) % 3)
            assert (other(images).argmax(dim=1) == labels).float().mean() < 0.5
        kept = torch.cat([mask.flatten() for mask in learnt.mask(i).values()])
        assert kept.float().mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("algorithm", "objective"),
    [("one_shot", "H"), ("one_shot", "G"), ("binary", "H"), ("max_logit", "H")],
)
def test_the_task_of_images_is_inferred(learnt, tasks, algorithm, objective):
    queries = torch.stack([images[:32] for images, _ in tasks])
    assert learnt.infer(queries, algorithm, objective).tolist() == [0, 1, 2]
    assert learnt.infer(queries[1], algorithm, objective).tolist() == [1]


def test_a_superposition_of_one_mask_is_that_mask(learnt, tasks):
    images = tasks[0][0][:5]
    one = learnt.superposition(torch.tensor([0.0, 1.0, 0.0]))
    with torch.no_grad():
        torch.testing.assert_close(one(images), learnt.model(1)(images))
        assert not torch.allclose(learnt.superposition()(images), one(images))


def test_the_same_seed_and_batches_give_the_same_masks(tasks):
    def first(seed: int) -> torch.Tensor:
        masks = Supermasks(mlp((8, 8), 12, hidden=[16]), (8, 8), "threshold", seed=seed)
        masks.learn(loader(tasks[0]), steps=5)
        return torch.cat([mask.flatten() for mask in masks.mask(0).values()])

    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))


def test_a_training_shows_its_steps(tasks):
    seen = []

    def noted(steps):
        for step in steps:
            seen.append(step)
            yield step

    Supermasks(mlp((8, 8), 12, hidden=[16]), (8, 8)).learn(loader(tasks[0]), 3, progress=noted)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("transfer", ["none", "similar", "knn"])
def test_masks_over_trained_weights_are_used_with_these_weights(tasks, transfer):
    network = mlp((8, 8), 12, hidden=[64])
    masks = Supermasks(network, (8, 8), ExSSNeT(density=0.3), num_real=10)
    options = {"learning_rate": 0.01, "smoothing": 0.999, "optimizer": "adam", "momentum": 0.9}
    recipe = Recipe(steps=150, batch_size=1, transfer=transfer, **options)
    for task in tasks:
        masks.learn(loader(task), recipe=recipe)
    for i, (images, labels) in enumerate(tasks):
        with torch.no_grad():
            assert (masks.model(i)(images).argmax(dim=1) == labels).float().mean() > 0.9
    images = tasks[1][0][:32]
    found = masks.infer(images, "max_logit")
    by_hand = [masks.model(i)(images)[:, :10].amax(dim=1).mean().item() for i in range(3)]
    assert found.tolist() == [int(np.argmax(by_hand))]


@pytest.mark.parametrize("transfer", ["mean", "last", "similar"])
def test_scores_may_start_from_earlier_masks(tasks, transfer):
    recipe = Recipe(steps=0, batch_size=1, learning_rate=1e-3, transfer=transfer)
    masks = Supermasks(module(), (8, 8), Threshold())
    masks.learn(loader(tasks[0]), steps=3)
    masks.learn(loader(tasks[0]), recipe=recipe)
    same = [torch.equal(masks.mask(0)[name], masks.mask(1)[name]) for name in masks.mask(0)]
    assert all(same)  # no step was taken, so the mask is the one that the scores started from


def test_what_is_not_possible_is_said():
    masks = Supermasks(module(), (8, 8))
    with pytest.raises(ValueError, match="a task must be learnt first, got none"):
        masks.infer(torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match="batches must have a batch, got none"):
        masks.learn([])
    with pytest.raises(ValueError, match="method must be one of threshold, edge_popup"):
        Supermasks(module(), (8, 8), "edge_pop")
    masks.learn([(torch.zeros(4, 8, 8), torch.zeros(4, dtype=torch.int64))], steps=1)
    with pytest.raises(ValueError, match=r"algorithm must be one of .*one_shot"):
        masks.infer(torch.zeros(1, 8, 8), "two_shot")
