"""Tests of masks over units: the forward pass, blocks of tasks, and recovery from reservoirs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from supsup_core.data import ImageSet, normalise
from supsup_core.networks.mlp import MLP
from supsup_core.networks.protocol import num_gains
from supsup_core.networks.units import NORM_EPSILON, UnitMLP, WholePixels, normalised, signed_sums
from supsup_core.reservoirs import Centred, Hebb, Projection, Storkey
from supsup_core.reservoirs.recovery import Descent, recover
from supsup_core.reservoirs.seeking import information, seek
from supsup_core.training.recipe import Recipe
from supsup_core.training.units import UnitMeasure, UnitTrainer, unit_masks_in_stages

CPU = torch.device("cpu")
NETWORK = UnitMLP("units", (20, 64, 48, 6))
SGD = Recipe(60, 32, 0.1, optimizer="sgd", momentum=0.9, weight_decay=1e-4)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def weights():
    return NETWORK.weights(0)


def gains_of(network, masks):
    """Convert masks (..., O), one per hidden layer, to gains."""
    pairs = zip(network.tensors, masks, strict=True)
    return {tensor.name: mask.float() for tensor, mask in pairs}


def random_masks(generator):
    return [torch.rand(n, generator=generator) < 0.5 for n in (64, 48)]


def test_hidden_units_are_masked_and_outputs_are_not():
    assert [(t.name, t.shape, t.fan_in, t.over) for t in NETWORK.tensors] == [
        ("units1", (64,), 20, "units"),
        ("units2", (48,), 64, "units"),
    ]
    assert num_gains(NETWORK) == NETWORK.num_activations == 112
    assert (NETWORK.num_outputs, NETWORK.normalises, NETWORK.input_shape) == (6, True, (20,))


def test_weights_are_those_of_the_mlp_of_these_widths(weights):
    expected = MLP("mlp", NETWORK.widths).weights(0)
    assert list(weights) == list(expected)
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


def test_a_network_without_a_hidden_layer_is_refused():
    with pytest.raises(ValueError, match=r"at least one hidden layer, got \(20, 6\)"):
        UnitMLP("none", (20, 6))


def prototypes(num_tasks, generator):
    """Draw two points (20,) per task, which are the centres of the task's two classes."""
    return torch.randn(num_tasks, 2, 20, generator=generator)


def drawn(points, count, generator):
    """Draw `count` images per task, and their labels, which are 2 t and 2 t + 1 for task t."""
    num_tasks = len(points)
    which = torch.randint(0, 2, (num_tasks, count), generator=generator)
    images = points[torch.arange(num_tasks)[:, None], which]
    images = images + 0.3 * torch.randn(images.shape, generator=generator)
    return images, which + 2 * torch.arange(num_tasks)[:, None]


def test_logits_are_those_of_torch_s_own_layers(weights, generator):
    masks, images = random_masks(generator), torch.randn(30, 20, generator=generator)
    x = images
    *hidden, last = weights.values()
    for weight, mask in zip(hidden, masks, strict=True):
        norm = nn.BatchNorm1d(len(weight), affine=False, track_running_stats=False)
        # The mask comes after Swish, as in the paper. The order does not matter: Swish keeps zeros.
        x = nn.functional.silu(norm(x @ weight.t())) * mask
    expected = x @ last.t()
    found = NETWORK.logits(weights, gains_of(NETWORK, masks), images)
    assert torch.allclose(found, expected, atol=1e-5)


def first_drives(weights, images):
    return normalised(weights["layer1"] @ images.transpose(-1, -2), NORM_EPSILON)


def train(weights, batches, num_tasks):
    """Train on all batches. Returns: one array of masks (B, O) per hidden layer."""
    drives = ((first_drives(weights, images), labels) for images, labels in batches)
    later, recipe = list(weights.values())[1:], replace(SGD, steps=len(batches))
    (masks,) = unit_masks_in_stages(later, drives, num_tasks, recipe, [recipe.steps])
    return masks


def test_training_labels_images_that_no_mask_of_chance_does(weights, generator):
    points = prototypes(3, generator)
    masks = train(weights, [drawn(points, 32, generator) for _ in range(40)], 3)
    assert [(mask.shape, mask.dtype) for mask in masks] == [
        ((3, 64), torch.bool),
        ((3, 48), torch.bool),
    ]
    images, labels = drawn(points, 200, generator)

    def accuracy(chosen):
        logits = NETWORK.logits(weights, gains_of(NETWORK, chosen), images)
        return (logits.argmax(dim=2) == labels).float().mean()

    assert accuracy(masks) > 0.95
    assert accuracy([torch.ones(3, 64), torch.ones(3, 48)]) < 0.6


def test_a_block_trains_what_each_task_trains_alone(weights, generator):
    points = prototypes(3, generator)
    batches = [drawn(points, 16, generator) for _ in range(10)]
    together = train(weights, batches, 3)
    for t in range(3):
        own = [(images[t : t + 1], labels[t : t + 1]) for images, labels in batches]
        alone = train(weights, own, 1)
        for a, b in zip(together, alone, strict=True):
            assert (a[t] == b[0]).float().mean() > 0.98  # the rounding differs


@pytest.mark.parametrize("rule", [Storkey, Projection])
def test_masks_are_recovered_from_images_without_labels(rule, generator):
    network = UnitMLP("wide", (20, 512, 6))
    weights, points = network.weights(0), prototypes(3, generator)
    trained = train(weights, [drawn(points, 32, generator) for _ in range(60)], 3)
    patterns = [2 * mask.float() - 1 for mask in trained]
    reservoir = rule(512)
    for pattern in patterns[0]:
        reservoir.store(pattern)
    start = [patterns[0].mean(dim=0)]
    for t in range(3):
        batches = [drawn(points, 64, generator)[0][t] for _ in range(30)]
        path = list(recover(network, weights, [reservoir], start, batches, Descent(energy=0.01)))
        assert len(path) == 31
        assert not torch.equal(path[0].masks[0], patterns[0][t])
        assert torch.equal(path[-1].masks[0], patterns[0][t])
        energy = float(reservoir.energy(patterns[0][t, None]))
        assert path[-1].energy == pytest.approx(energy, rel=1e-4)
        assert path[-1].entropy is None


def test_without_a_step_the_start_is_what_is_recovered(weights):
    start = [torch.full((64,), -0.5), torch.zeros(48)]
    reservoirs = [Storkey(64), Storkey(48)]
    (point,) = recover(NETWORK, weights, reservoirs, start, [], Descent())
    assert [mask.unique().item() for mask in point.masks] == [-1, 1]
    assert (point.energy, point.entropy) == (0, None)


def test_a_step_of_recovery_is_a_step_of_the_authors(weights, generator):
    # The authors hold a real score per unit. A mask is 1 where the score is at least 0; its
    # derivative counts as 1. The energy is that of 2 mask - 1, so its derivative is doubled.
    start = [torch.randn(64, generator=generator), torch.randn(48, generator=generator)]
    reservoirs = [Hebb(64), Hebb(48)]
    for one in reservoirs:
        one.store(torch.randn(one.dim, generator=generator).sign())
    images = torch.randn(2, 16, 20, generator=generator)
    descent = Descent(learning_rate=2.0, energy=0.5)
    *_, point = recover(NETWORK, weights, reservoirs, start, list(images), descent)
    scores, speed = [s.clone() for s in start], [torch.zeros_like(s) for s in start]
    for t, batch in enumerate(images, start=1):
        masks = [(s >= 0).float().requires_grad_() for s in scores]
        gains = {tensor.name: m for tensor, m in zip(NETWORK.tensors, masks, strict=True)}
        p = NETWORK.logits(weights, gains, batch).softmax(dim=1)
        loss = -(p * p.log()).sum(dim=1).mean() * (1 - t / 2)
        for one, m in zip(reservoirs, masks, strict=True):
            s = 2 * m - 1
            loss = loss + 0.5 * t / 2 * (-s @ (one.weights - one.weights.diag().diag()) @ s / 2)
        loss.backward()
        for i, (score, mask) in enumerate(zip(scores, masks, strict=True)):
            speed[i] = 0.9 * speed[i] + mask.grad + 1e-4 * score
            scores[i] = score - 2.0 * speed[i]
    for found, score, first in zip(point.masks, scores, start, strict=True):
        assert torch.equal(found, torch.where(score >= 0, 1.0, -1.0))
        assert not torch.equal(found, torch.where(first >= 0, 1.0, -1.0))


# From pixels


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (30, 20), dtype=np.uint8)


def test_drives_of_pixels_are_those_of_normalised_images(weights, pixels):
    fixed = WholePixels(NETWORK, 0, std=0.3, device=CPU)
    images = normalise(torch.from_numpy(pixels), mean=(0.4,), std=(0.3,))
    expected = first_drives(weights, images)
    assert torch.allclose(fixed.drives(pixels), expected, atol=1e-4)
    some = torch.tensor([5, 0, 63])
    assert torch.equal(fixed.drives(pixels, some), fixed.drives(pixels)[some])


@pytest.mark.parametrize("has_integers", [True, False])
def test_signed_sums_are_exact_by_either_product(has_integers, pixels, monkeypatch):
    monkeypatch.setattr("supsup_core.whole_products._multiplies_int8", lambda: has_integers)
    signs = np.random.default_rng(1).choice([-1, 1], (64, 20)).astype(np.int8)
    expected = signs.astype(np.int64) @ (pixels.T.astype(np.int64) - 128)
    found = signed_sums(torch.from_numpy(signs), torch.from_numpy(pixels).t())
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy(), expected)


@pytest.fixture(scope="module")
def trained(digits, make_tasks):
    """(network, tasks, whole pixels, states) after training on three permutations of the digits."""
    network = UnitMLP("wide", (64, 1024, 10))
    tasks = make_tasks("permuted", side=8, num_classes=10)
    fixed = WholePixels(network, 0, digits[0].std[0], CPU)
    steps = []
    trainer = UnitTrainer(fixed, *digits, SGD, seed=0)
    ((states, _),) = trainer.stages(tasks, [SGD.steps], on_step=steps.append)
    assert steps == list(range(1, SGD.steps + 1))
    return network, tasks, fixed, states


def test_a_block_learns_digits_and_gives_the_outputs_no_mask(trained, digits):
    _, tasks, fixed, states = trained
    assert [[plane.shape for plane in state.planes] for state in states] == [[(1024,)]] * 3
    measure = UnitMeasure(fixed, digits[1])
    own = [measure(task, states[i]).accuracy for i, task in enumerate(tasks)]
    other = [measure(task, states[i - 1]).accuracy for i, task in enumerate(tasks)]
    assert min(own) > 0.75
    assert max(other) < 0.5


def test_states_on_the_way_are_those_of_the_steps_so_far(trained, digits):
    _, tasks, fixed, _ = trained
    done = []
    brief = Recipe(6, 32, 0.1, optimizer="sgd", momentum=0.9)
    shown = UnitTrainer(fixed, *digits, brief, seed=0).stages(tasks, [0, 2, 6], on_step=done.append)
    for steps in (0, 2, 6):
        states, _ = next(shown)
        assert len(done) == steps
        ((alone, _),) = UnitTrainer(fixed, *digits, replace(brief, steps=steps), seed=0).stages(
            tasks, [steps]
        )
        for one, other in zip(states, alone, strict=True):
            assert np.array_equal(one.planes[0], other.planes[0])
    assert next(shown, None) is None
    # As from every trainer, the states at the end come only if they were asked for.
    assert len(list(UnitTrainer(fixed, *digits, brief, seed=0).stages(tasks, [2]))) == 1


@pytest.mark.parametrize("family", ["permuted", "rotated", "split"])
def test_a_measure_is_that_of_all_units_at_once(family, trained, digits, make_tasks):
    network, _, fixed, states = trained
    task = make_tasks(family, side=8, num_classes=10)[1]
    members = task.members(digits[1].labels)[:200]
    few = ImageSet(
        digits[1].images[members], digits[1].labels[members], digits[1].mean, digits[1].std
    )
    measured = UnitMeasure(fixed, few)(task, states[0])
    images = normalise(torch.from_numpy(task.images(few.images)), few.mean, few.std)
    gains = gains_of(network, [torch.from_numpy(plane) for plane in states[0].planes])
    logits = network.logits(network.weights(0), gains, images)
    labels = torch.from_numpy(few.labels.astype(np.int64))
    accuracy = float((logits.argmax(dim=1) == labels).double().mean())
    assert measured.accuracy == pytest.approx(accuracy)
    loss = float(nn.functional.cross_entropy(logits, labels))
    assert measured.loss == pytest.approx(loss, rel=1e-4)


def test_a_measure_mixes_images_that_are_sorted_by_class(trained, digits):
    _, tasks, fixed, states = trained
    order = np.argsort(digits[1].labels, kind="stable")
    by_class = ImageSet(
        digits[1].images[order], digits[1].labels[order], digits[1].mean, digits[1].std
    )
    assert UnitMeasure(fixed, by_class)(tasks[0], states[0]).accuracy == pytest.approx(
        UnitMeasure(fixed, digits[1])(tasks[0], states[0]).accuracy, abs=0.03
    )


# Search in a reservoir


def test_information_is_that_of_labels_to_second_order(generator):
    logits = 0.01 * torch.randn(2, 50, 6, generator=generator)
    p = torch.softmax(logits.double(), dim=-1)
    of_all = p.mean(dim=1)
    conditional = -(p * p.log()).sum(dim=-1).mean(dim=1)
    mutual = -(of_all * of_all.log()).sum(dim=-1) - conditional
    assert torch.allclose(information(logits).double(), mutual, rtol=0.05)
    assert information(logits + 3).tolist() == pytest.approx(information(logits).tolist(), rel=1e-2)


def test_masks_are_found_from_images_alone(trained, digits):
    network, tasks, _, states = trained
    patterns = torch.from_numpy(np.stack([2.0 * state.planes[0] - 1 for state in states])).float()
    reservoir = Centred(Projection(1024))
    for pattern in patterns:
        reservoir.store(pattern)
    shown = digits[1].images[:128]
    images = [
        normalise(torch.from_numpy(task.images(shown)), digits[1].mean, digits[1].std)
        for task in tasks
    ]
    weights, inputs = network.weights(0), torch.stack(images)

    def logits(sought):
        return network.logits(weights, gains_of(network, [(sought + 1) / 2]), inputs)

    found = seek(reservoir, logits, len(tasks), 20)
    assert torch.equal(found.states, patterns)
    assert found.settled.all()


@pytest.mark.parametrize("ink", [0.0, 3.0])
def test_what_any_mask_shows_of_the_images_does_not_drown_the_labels(ink, generator):
    num_units, num_outputs, num_images, num_tasks = 1024, 10, 64, 4
    states = torch.where(torch.rand(200, num_units, generator=generator) < 0.5, 1.0, -1.0)
    reservoir = Centred(Projection(num_units))
    for state in states:
        reservoir.store(state)
    weights = torch.randn(num_outputs, num_units, generator=generator)
    labels = torch.randint(num_outputs, (num_images,), generator=generator)
    of_labels = states[:num_tasks, None] * weights[labels]
    of_ink = torch.randn(num_tasks, num_images, 1, generator=generator) * torch.randn(
        num_tasks, 1, num_units, generator=generator
    )
    noise = torch.randn(num_tasks, num_images, num_units, generator=generator)
    drives = 0.3 * of_labels + ink * of_ink + noise

    def logits(sought):
        return (drives * (sought[:, None] + 1) / 2) @ weights.t() / num_units**0.5

    found = seek(reservoir, logits, num_tasks, 20)
    assert torch.equal(found.states, states[:num_tasks])
