"""Training by autograd with all data on a GPU, real or pretended: values, copies, waits, memory."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from pretended_cuda import CUDA, PretendedCuda
from supsup_core.baselines.batche import BatchE
from supsup_core.baselines.own_weights import Heads
from supsup_core.data import ImageSet
from supsup_core.methods.biprop import Biprop
from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.iterand import IteRand
from supsup_core.methods.n_of_m import NOfM
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.recycling import Recycling
from supsup_core.methods.signed import Signed
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.conv import small_conv
from supsup_core.networks.mlp import mlp
from supsup_core.networks.module import as_network
from supsup_core.networks.units import units
from supsup_core.training import resident_autograd
from supsup_core.training.autograd import AutogradTrainer
from supsup_core.training.choose import trainer_for
from supsup_core.training.measure import measure_for
from supsup_core.training.recipe import Recipe
from supsup_core.training.resident_autograd import ResidentAutogradTrainer
from supsup_core.training.resident_autograd_tensors import AutogradForm

CPU = torch.device("cpu")


class Shuffled(nn.Module):
    """Colour images whose channels a buffer of whole numbers reorders, and a convolution."""

    def __init__(self):
        super().__init__()
        self.register_buffer("order", torch.tensor([2, 0, 1]))
        self.conv = nn.Conv2d(3, 4, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(36, 10, bias=False)

    def forward(self, x):
        shown = x.index_select(1, self.order)
        return self.linear(self.norm(self.conv(shown)).relu().flatten(1))


GREY, COLOUR = (1, 8, 8), (3, 8, 8)
ADAM = Recipe(5, 8, 1e-2, optimizer="adam", momentum=0.9, smoothing=0.999, decay="cosine")
SMALL_MLP = mlp(GREY, 10, hidden=[12])
# Each kind of network, each family, each optimiser, and each kind of finder: with one and two
# planes, with scales, with a threshold that the steps change, and with floats instead of planes
CASES = {
    "conv": (
        as_network("conv", small_conv(GREY, 10, channels=(3, 4)), GREY),
        *("permuted", Threshold(), ADAM),
    ),
    "colour": (
        as_network("colour", Shuffled(), COLOUR),
        *("rotated", Signed(), replace(ADAM, weight_decay=1e-2)),
    ),
    "split": (
        as_network("conv", small_conv(GREY, 10, channels=(3, 4)), GREY),
        *("split", NOfM(decay_of_dropped=0.1), Recipe(5, 8, 0.5, optimizer="sgd", momentum=0.9)),
    ),
    "units": (units(GREY, 10, hidden=[24]), "permuted", EdgePopup(0.3), Recipe(5, 8, 1e-2)),
    "dense": (
        mlp(GREY, 10, hidden=[12], init="kaiming_normal"),
        *("permuted", EdgePopup(0.3), Recipe(5, 8, 1e-2, temperature=1.5)),
    ),
    "biprop": (SMALL_MLP, "rotated", Biprop(0.3), Recipe(5, 8, 1e-2)),
    "biprop of a module": (
        as_network("conv", small_conv(GREY, 10, channels=(3, 4)), GREY),
        *("permuted", Biprop(0.3), replace(ADAM, weight_decay=1e-2)),
    ),
    "biprop with a ramp": (
        SMALL_MLP,
        *("split", Biprop(0.1, scope="global", ramp=1.0), Recipe(5, 8, 1e-2)),
    ),
    "batche": (SMALL_MLP, "permuted", BatchE(), Recipe(5, 8, 1e-2)),
    "heads": (SMALL_MLP, "permuted", Heads(), Recipe(5, 8, 1e-2)),
}
# Launches of a step, for any number of blocks. A finder takes 20 to 100 of them per masked tensor,
# and the networks with two convolutions take more than the MLPs with two layers. The groups of
# n_of_m are compared one number after another.
LAUNCHES = {
    "conv": 131,
    "colour": 106,
    "split": 300,
    "units": 68,
    "dense": 93,
    "biprop": 105,
    "biprop of a module": 188,
    "biprop with a ramp": 102,
    "batche": 91,
    "heads": 45,
}
# Finders that change weights after every second step
CHANGING = {
    "iterand": (
        SMALL_MLP,
        *("permuted", IteRand(0.3, every=2, magnitudes="kaiming_normal"), Recipe(5, 8, 1e-2)),
    ),
    "recycling": (SMALL_MLP, "permuted", Recycling(0.3, every=2), Recipe(5, 8, 1e-2)),
}
ALL = {**CASES, **CHANGING}
# Finders with other scores than those of masked tensors
WITH_OTHER_SCORES = ("biprop", "biprop of a module", "biprop with a ramp", "batche", *CHANGING)


def images_of(network):
    rng, num = np.random.default_rng(0), network.input_shape[0]
    pixels = rng.integers(0, 256, (60, *network.input_shape), dtype=np.uint8)
    return ImageSet(pixels, np.arange(60, dtype=np.uint8) % 10, (0.5, 0.4, 0.3)[:num], (0.3,) * num)


@pytest.fixture
def blocks(make_tasks):
    """A function that makes blocks of two tasks, and a last block of one task."""

    def made(family, num=5):
        tasks = make_tasks(family, range(num), side=8, num_classes=10, num_tasks=num)
        return [tasks[i : i + 2] for i in range(0, num, 2)]

    return made


def make(kind, name, device=CPU):
    network, _, method, recipe = ALL[name]
    data = images_of(network)
    measure = measure_for(network, layout_of(network, method), data, 0, device)
    given = network, method, data, measure, recipe
    return kind(*given, seed=0, dtype=torch.float64, device=device)


def assert_same(states, others):
    for state, other in zip(states, others, strict=True):
        assert all(map(np.array_equal, state.planes, other.planes))
        assert state.floats.keys() == other.floats.keys()
        for name, values in state.floats.items():
            np.testing.assert_allclose(values, other.floats[name], rtol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_blocks_side_by_side_get_the_masks_of_each_block_alone_on_the_cpu(name, blocks):
    network, family, method, recipe = ALL[name]
    given, done = blocks(family), []
    plain = make(AutogradTrainer, name).side_by_side(given)
    begun = [s for b in given for s in next(make(AutogradTrainer, name).stages(b, [0]))[0]]
    with PretendedCuda():
        data = images_of(network)
        options = {"seed": 0, "dtype": torch.float64, "device": CUDA}
        trainer = trainer_for(network, method, data, data, recipe, **options)
        assert type(trainer) is ResidentAutogradTrainer
        together = trainer.side_by_side(given, done.append)
        alone = [state for block in given for state in trainer.side_by_side([block])]
        stages = [states for states, _ in trainer.stages(given[0], [0, 2, recipe.steps])]
    assert_same(together, plain)
    assert_same(alone, plain)
    assert_same(stages[0], begun[:2])
    assert_same(stages[2], plain[:2])
    before, after = (layout_of(network, method).pack(states) for states in (begun, plain))
    assert (before != after).any(axis=1).all()  # the training has changed every state
    assert done == sorted(done)
    assert done[-1] == recipe.steps


def marked_steps(name, blocks):
    """Train blocks on the pretended GPU.

    Returns:
        For each step but the first, the numbers of launches, copies and waits. For each step, the
        addresses of all tensors.
    """
    marks, addresses = [], []
    with PretendedCuda() as gpu:
        trainer = make(ResidentAutogradTrainer, name, CUDA)

        def on_step(done):
            marks.append((gpu.kernels, gpu.uploads + gpu.downloads, gpu.waits))
            made = trainer._kept
            kept = [*made._scores.values(), *made._floats.values(), made.tables.step]
            kept += [part for state in made._states.values() for part in state]
            addresses.append([tensor.inner.data_ptr() for tensor in kept])

        trainer.side_by_side(blocks, on_step)
        assert trainer._kept.form.tasks == sum(map(len, blocks))
    steps = [tuple(b - a for a, b in zip(*pair, strict=True)) for pair in pairwise(marks)]
    return steps, addresses


@pytest.mark.parametrize("name", CASES)
def test_a_step_copies_nothing_waits_for_nothing_and_its_launches_are_few(name, blocks):
    given = blocks(CASES[name][1], 4)
    for num in (1, 3):  # the same number of launches for 2 and for 6 blocks
        steps, addresses = marked_steps(name, given * num)
        ((launches, copies, waits),) = set(steps)  # every step is the same
        assert (copies, waits) == (0, 0)
        assert 0.8 * LAUNCHES[name] < launches <= LAUNCHES[name]
        assert all(one == addresses[0] for one in addresses)


@pytest.mark.parametrize("name", CHANGING)
def test_steps_that_change_no_weights_copy_nothing(name, blocks):
    steps, addresses = marked_steps(name, blocks("permuted", 4))
    assert [copies > 0 for _, copies, _ in steps] == [True, False, True, False]
    assert [waits for *_, waits in steps] == [0] * 4
    assert all(one == addresses[0] for one in addresses)


@pytest.mark.parametrize("name", ["conv", "colour", "dense", *WITH_OTHER_SCORES])
def test_a_step_takes_no_more_memory_than_computed(name, blocks, monkeypatch):
    given = blocks(ALL[name][1], 4)
    with PretendedCuda() as gpu:
        trainer = make(ResidentAutogradTrainer, name, CUDA)
        kept = trainer._shown.pixels.nbytes + sum(w.nbytes for w in trainer._weights.values())
        gpu.reset()
        before = gpu.allocated_bytes
        trainer.side_by_side(given)
        taken = gpu.peak_bytes - before
        shape = images_of(trainer._network).flat.shape[1], torch.float64
        computed = trainer._kept.form.num_bytes(trainer._network, trainer._forms, *shape)
    assert before >= kept
    assert 0.2 * computed < taken <= computed
    monkeypatch.setattr(resident_autograd, "free_bytes", lambda _: 100 * computed)
    trainer = make(ResidentAutogradTrainer, name)
    trainer._device = torch.device("cuda")
    assert 100 <= trainer._most_blocks(given[0]) <= 160


def test_a_block_that_keeps_the_device_busy_trains_alone(blocks, monkeypatch):
    trainer, (block, *_) = make(ResidentAutogradTrainer, "conv"), blocks("permuted")
    activations = 2 * 8 * CASES["conv"][0].num_activations
    for busy, most in ((1, 1), (activations, 1), (3 * activations, 3)):
        monkeypatch.setattr(resident_autograd, "_BUSY_ACTIVATIONS", busy)
        assert trainer._most_blocks(block) == most


@pytest.mark.parametrize("name", ["conv", "colour"])
def test_images_that_the_host_makes_give_the_same_masks(name, blocks, monkeypatch):
    given = blocks(CASES[name][1])
    with PretendedCuda() as gpu:
        expected = make(ResidentAutogradTrainer, name, CUDA).side_by_side(given)
        monkeypatch.setattr("supsup_core.tasks.shown._SHARE", 0)
        trainer = make(ResidentAutogradTrainer, name, CUDA)
        gpu.reset()
        assert_same(trainer.side_by_side(given), expected)
        assert trainer._shown.pixels is None
        assert gpu.uploads > 2 * CASES[name][3].steps * len(given)
    on_cpu = make(ResidentAutogradTrainer, name).side_by_side(given)
    assert_same(on_cpu, expected)


def test_images_that_change_at_random_are_those_of_the_cpu(blocks):
    (block, *_) = blocks("permuted")
    recipe = replace(ADAM, augment="crop_flip")
    found = []
    with PretendedCuda():
        for kind, device in ((AutogradTrainer, CPU), (ResidentAutogradTrainer, CUDA)):
            trainer = make(kind, "conv", device)
            trainer._recipe = recipe
            found.append(trainer.side_by_side([block]))
    assert_same(*found)


def test_a_form_says_what_the_tensors_hold(blocks):
    given = blocks("permuted", 4)
    assert AutogradForm.of(given, 8, fed=False) == AutogradForm(4, 2, 8, 64, fed=False)
    assert AutogradForm.of(given, 8, fed=True) == AutogradForm(4, 2, 8, 0, fed=True)
    assert AutogradForm.of(blocks("split", 4), 8, fed=False).groups == 4
