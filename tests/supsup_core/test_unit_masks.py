"""Masks over units: the pass forward, blocks of tasks, and recovery from reservoirs."""

import pytest
import torch
from torch import nn

from supsup_core.networks import Network, fixed_weights
from supsup_core.reservoirs import Projection, Storkey
from supsup_core.reservoirs.recovery import Descent, recover
from supsup_core.unit_masks import UnitRecipe, train_unit_masks, unit_forward

NETWORK = Network("units", (20, 64, 48, 6))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def weights():
    return fixed_weights(NETWORK, 0)


def random_masks(num_tasks, generator):
    return [(torch.rand(num_tasks, n, generator=generator) < 0.5).float() for n in (64, 48)]


def prototypes(num_tasks, generator):
    """Every task has two classes, each about a point of its own."""
    return torch.randn(num_tasks, 2, 20, generator=generator)


def drawn(points, count, generator):
    """Images of all tasks, and labels 2 t and 2 t + 1 of task t."""
    num_tasks = len(points)
    which = torch.randint(0, 2, (num_tasks, count), generator=generator)
    images = points[torch.arange(num_tasks)[:, None], which]
    images = images + 0.3 * torch.randn(images.shape, generator=generator)
    return images, which + 2 * torch.arange(num_tasks)[:, None]


def test_logits_are_those_of_torch_s_own_layers(weights, generator):
    masks, images = random_masks(1, generator), torch.randn(1, 30, 20, generator=generator)
    x = images[0]
    for weight, mask in zip(weights[:-1], masks, strict=True):
        norm = nn.BatchNorm1d(len(weight), affine=False, track_running_stats=False)
        # The mask behind Swish, where the paper has it: Swish keeps zeros.
        x = nn.functional.silu(norm(x @ weight.t())) * mask[0]
    expected = x @ weights[-1].t()
    assert torch.allclose(unit_forward(weights, masks, images)[0], expected, atol=1e-5)


def test_training_labels_images_that_no_mask_of_chance_does(weights, generator):
    points = prototypes(3, generator)
    masks = train_unit_masks(
        weights, (drawn(points, 32, generator) for _ in range(40)), 3, UnitRecipe()
    )
    assert [(mask.shape, mask.dtype) for mask in masks] == [
        ((3, 64), torch.bool),
        ((3, 48), torch.bool),
    ]
    images, labels = drawn(points, 200, generator)

    def accuracy(chosen):
        return (unit_forward(weights, chosen, images).argmax(dim=2) == labels).float().mean()

    assert accuracy([mask.float() for mask in masks]) > 0.95
    assert accuracy([torch.ones(3, 64), torch.ones(3, 48)]) < 0.6


def test_a_block_trains_what_each_task_trains_alone(weights, generator):
    points = prototypes(3, generator)
    batches = [drawn(points, 16, generator) for _ in range(10)]
    together = train_unit_masks(weights, batches, 3, UnitRecipe())
    for t in range(3):
        own = [(images[t : t + 1], labels[t : t + 1]) for images, labels in batches]
        alone = train_unit_masks(weights, own, 1, UnitRecipe())
        for a, b in zip(together, alone, strict=True):
            assert (a[t] == b[0]).float().mean() > 0.98  # products round otherwise


@pytest.mark.parametrize("rule", [Storkey, Projection])
def test_masks_are_recovered_from_images_without_labels(rule, generator):
    network = Network("wide", (20, 512, 6))
    weights, points = fixed_weights(network, 0), prototypes(3, generator)
    trained = train_unit_masks(
        weights, (drawn(points, 32, generator) for _ in range(60)), 3, UnitRecipe()
    )
    patterns = [2 * mask.float() - 1 for mask in trained]
    reservoir = rule(512)
    for pattern in patterns[0]:
        reservoir.store(pattern)
    start = [patterns[0].mean(dim=0)]
    for t in range(3):
        batches = [drawn(points, 64, generator)[0][t] for _ in range(30)]
        found = recover(weights, [reservoir], start, batches, Descent(energy=0.01))
        assert torch.equal(found.masks[0], patterns[0][t])
        assert 1 <= found.steps <= 30


def test_without_a_step_the_start_is_what_is_recovered(weights):
    start = [torch.full((64,), -0.5), torch.zeros(48)]
    reservoirs = [Storkey(64), Storkey(48)]
    found = recover(weights, reservoirs, start, [], Descent())
    assert found.steps == 0
    assert [mask.unique().item() for mask in found.masks] == [-1, 1]
