"""Tests of `trainer_for`, which chooses a trainer and the form of the trainer's layers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pretended_cuda import CUDA, PretendedCuda
from supsup_core.baselines.batche import BatchE
from supsup_core.baselines.own_weights import UpperBound
from supsup_core.data import ImageSet
from supsup_core.engines.choose import engine_type
from supsup_core.engines.mlp import MLPEngine
from supsup_core.methods.biprop import Biprop
from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.exssnet import ExSSNeT
from supsup_core.methods.iterand import IteRand
from supsup_core.methods.jackpots import Jackpots
from supsup_core.methods.multicoated import Multicoated
from supsup_core.methods.n_of_m import NOfM
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.random_search import RandomSearch
from supsup_core.methods.recycling import Recycling
from supsup_core.methods.signed import Signed
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.conv import small_conv
from supsup_core.networks.mlp import MLP, lenet_300_100
from supsup_core.networks.module import as_network
from supsup_core.networks.units import UnitMLP
from supsup_core.training.autograd import AutogradTrainer
from supsup_core.training.blocks import MLPTrainer
from supsup_core.training.choose import trainer_for
from supsup_core.training.fused_layers import (
    FusedGroupsLayer,
    FusedSignedLayer,
    FusedThresholdLayer,
    FusedTopShareLayer,
    layer_form,
)
from supsup_core.training.layers import BlockLayer
from supsup_core.training.measure import PlainMeasure, measure_for
from supsup_core.training.modules import ModuleTrainer
from supsup_core.training.recipe import Recipe
from supsup_core.training.resident_autograd import ResidentAutogradTrainer
from supsup_core.training.search import SearchTrainer
from supsup_core.training.units import UnitTrainer

RECIPE = Recipe(steps=1, batch_size=4, learning_rate=0.1)
LENET, UNITS = lenet_300_100((6, 2, 2), 10), UnitMLP("units", (24, 9, 10), (6, 2, 2))


class OtherMask(Threshold):
    def mask(self, tensor, scores):
        return scores > 0.1


class OtherGains(Threshold):
    def gains(self, network, scores):
        return {n: 2 * gain for n, gain in super().gains(network, scores).items()}


class OtherEnd(Threshold):
    def end(self, network, scores):
        return super().end(network, scores)


class AfterStep(Threshold):
    def after_step(self, network, scores, shared, progress):
        pass


class InSequence(Threshold):
    order = "sequence"


class OtherMLP(MLP):
    pass


def images(shape=(24,), means=1):
    pixels = np.zeros((8, *shape), np.uint8)
    return ImageSet(pixels, np.zeros(8, np.uint8), (0.5,) * means, (0.3,) * means)


def chosen(network, method, recipe=RECIPE, data=None):
    data = images() if data is None else data
    return trainer_for(network, method, data, data, recipe, seed=0)


def forms(method, network=LENET):
    """Return the classes of the layers of a network on the CPU."""
    return {layer_form(method, tensor, torch.device("cpu")) for tensor in network.tensors}


@pytest.mark.parametrize(
    ("method", "form"),
    [
        (Threshold(), FusedThresholdLayer),
        (EdgePopup(0.3), FusedTopShareLayer),
        (EdgePopup(kappa=1.0), FusedTopShareLayer),
        (Biprop(magnitudes="signed_constant"), FusedTopShareLayer),
        (Biprop(), FusedTopShareLayer),
        (Multicoated(), FusedTopShareLayer),
        (NOfM(), FusedGroupsLayer),
        (Signed(), FusedSignedLayer),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_lenet_and_a_finder_with_a_fast_rule_get_the_fused_block_path(method, form):
    assert type(chosen(LENET, method)) is MLPTrainer
    assert forms(method) == {form}


class OtherShare(EdgePopup):
    def mask(self, tensor, scores):
        return ~super().mask(tensor, scores)


class OtherCoats(Multicoated):
    def slope(self, tensor, scores):
        return 1.0


class OtherDecay(Threshold):
    def decay(self, tensor, scores):
        return 0.1 * scores


class OtherSigns(Signed):
    def choose(self, tensor, scores):
        return [~bits for bits in super().choose(tensor, scores)]


@pytest.mark.parametrize(
    "method",
    [OtherShare(0.3), OtherMask(), OtherCoats(), OtherDecay(), OtherSigns()],
    ids=lambda method: type(method).__name__,
)
def test_other_rules_of_planes_get_the_block_path_in_torch(method):
    assert type(chosen(LENET, method)) is MLPTrainer
    assert forms(method) == {BlockLayer}


class OwnPhase(Threshold):
    def phase(self, names, step, steps):
        return super().phase(names, step, steps)


class OwnRamp(Biprop):
    def after_step(self, network, scores, shared, progress):
        pass


@pytest.mark.parametrize(
    ("method", "recipe", "kind"),
    [
        (OtherGains(), RECIPE, ResidentAutogradTrainer),
        (OtherEnd(), RECIPE, ResidentAutogradTrainer),
        (Biprop(), RECIPE, ResidentAutogradTrainer),
        (Biprop(0.1, scope="global"), RECIPE, ResidentAutogradTrainer),
        (IteRand(), RECIPE, ResidentAutogradTrainer),
        (Recycling(magnitudes="kaiming_normal"), RECIPE, ResidentAutogradTrainer),
        (BatchE(), RECIPE, ResidentAutogradTrainer),
        (UpperBound(), RECIPE, ResidentAutogradTrainer),
        (Biprop(), replace(RECIPE, transfer="mean"), ResidentAutogradTrainer),
        (Biprop(), replace(RECIPE, transfer="mean_scores"), AutogradTrainer),
        (BatchE("trained"), RECIPE, AutogradTrainer),
        (ExSSNeT(), RECIPE, AutogradTrainer),
        (Jackpots(base_share=0.0), RECIPE, AutogradTrainer),
        (RandomSearch(), RECIPE, SearchTrainer),
        (AfterStep(), RECIPE, AutogradTrainer),
        (InSequence(), RECIPE, AutogradTrainer),
        (OwnPhase(), RECIPE, AutogradTrainer),
        (OwnRamp(), RECIPE, AutogradTrainer),
    ],
)
def test_a_gpu_trains_blocks_side_by_side_if_all_steps_are_equal(method, recipe, kind):
    with PretendedCuda():
        trainer = trainer_for(LENET, method, images(), images(), recipe, seed=0, device=CUDA)
    assert type(trainer) is kind


@pytest.mark.parametrize(
    "method",
    [
        *(Biprop(scope="global"), OwnRamp(), Recycling(magnitudes="kaiming_normal")),
        *(OtherGains(), OtherEnd(), AfterStep(), InSequence()),
    ],
    ids=lambda method: type(method).__name__,
)
def test_finders_that_do_more_than_choose_planes_get_autograd(method):
    assert type(chosen(LENET, method)) is AutogradTrainer


def test_another_network_gets_autograd():
    assert type(chosen(OtherMLP("other", (24, 10)), Threshold())) is AutogradTrainer


def test_weight_decay_has_a_fast_form():
    assert type(chosen(LENET, Signed(), replace(RECIPE, weight_decay=1e-4))) is MLPTrainer


@pytest.mark.parametrize("network", [LENET, UNITS], ids=lambda network: network.name)
def test_images_that_change_at_random_get_autograd(network):
    assert type(chosen(network, Threshold(), replace(RECIPE, augment="crop"))) is AutogradTrainer


def test_weights_that_are_not_constants_get_forms_that_do_not_need_constants():
    network = lenet_300_100((24,), 10, init="kaiming_normal")
    layout, cpu = layout_of(network, Threshold()), torch.device("cpu")
    assert type(chosen(network, Threshold())) is AutogradTrainer
    assert type(measure_for(network, layout, images(), 0, cpu)) is PlainMeasure
    assert engine_type(network, layout, cpu) is MLPEngine


def test_modules_get_their_fast_trainer_if_the_finder_and_the_weights_allow_it():
    def made(init="signed_constant"):
        return as_network("conv", small_conv((6, 2, 2), 10, channels=(3,), init=init), (6, 2, 2))

    data = images((6, 2, 2))
    for method in (Threshold(), EdgePopup(0.3), OtherMask(), Signed(), Multicoated(), NOfM()):
        assert type(chosen(made(), method, data=data)) is ModuleTrainer
    assert type(chosen(made(), Biprop(), data=data)) is AutogradTrainer
    assert type(chosen(made("kaiming_normal"), Threshold(), data=data)) is AutogradTrainer
    decayed = replace(RECIPE, weight_decay=1e-4)
    assert type(chosen(made(), Threshold(), decayed, data=data)) is ModuleTrainer


def test_units_and_the_threshold_get_the_trainer_of_whole_pixels():
    assert type(chosen(UNITS, Threshold())) is UnitTrainer
    assert type(chosen(UNITS, Threshold(), replace(RECIPE, weight_decay=1e-4))) is UnitTrainer
    for method in (OtherMask(), EdgePopup(), Signed()):
        assert type(chosen(UNITS, method)) is AutogradTrainer


@pytest.mark.parametrize("means", [1, 6])
@pytest.mark.parametrize("network", [LENET, UNITS], ids=lambda network: network.name)
def test_images_of_several_channels_get_autograd(network, means):
    coloured = images((6, 2, 2), means)
    assert type(chosen(network, Threshold(), data=coloured)) is AutogradTrainer


@pytest.mark.parametrize("means", [1, 3])
@pytest.mark.parametrize("family", ["permuted", "rotated"])
def test_channels_train_and_are_measured_as_each_task_shows_them(family, means, rng, make_tasks):
    pixels = rng.integers(0, 256, (40, 3, 4, 4), dtype=np.uint8)
    data = ImageSet(pixels, np.arange(40, dtype=np.uint8) % 6, (0.5,) * means, (0.3,) * means)
    network, tasks = MLP("coloured", (48, 12, 6), (3, 4, 4)), make_tasks(family)
    recipe = Recipe(steps=3, batch_size=8, learning_rate=0.01)
    trainer = trainer_for(network, Threshold(), data, data, recipe, seed=0)
    ((states, _),) = trainer.stages(tasks, [3])
    for task, state in zip(tasks, states, strict=True):
        assert 0 <= trainer.measure(task, state).accuracy <= 1


class Read:
    """Images that are read when they are indexed."""

    dtype = np.dtype(np.uint8)

    def __init__(self, pixels):
        self.pixels, self.shape = pixels, pixels.shape

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return self.pixels[index]


@pytest.mark.parametrize("name", ["dense", "conv"])
def test_colour_images_that_are_not_in_memory_train_the_same_masks(name, rng, make_tasks):
    pixels = rng.integers(0, 256, (40, 3, 4, 4), dtype=np.uint8)
    labels = np.arange(40, dtype=np.uint8) % 6
    made = (
        MLP("dense", (48, 12, 6), (3, 4, 4)) if name == "dense" else small_conv((3, 4, 4), 6, [4])
    )
    network, tasks = as_network(name, made, (3, 4, 4)), make_tasks("permuted")
    recipe = Recipe(steps=3, batch_size=8, learning_rate=0.01)
    rows, measured = [], []
    for images in (pixels, Read(pixels)):
        data = ImageSet(images, labels, (0.5,), (0.3,))
        trainer = trainer_for(network, Threshold(), data, data, recipe, seed=0)
        states = trainer.side_by_side([tasks])
        rows.append(layout_of(network, Threshold()).pack(states))
        measured.append(trainer.measure_each(tasks, states))
    assert np.array_equal(*rows)
    assert measured[0] == measured[1]


@pytest.mark.parametrize("network", [LENET, UNITS], ids=lambda network: network.name)
def test_grey_images_of_an_mlp_must_be_in_memory(network):
    data = images((1, 4, 6), 1)
    read = replace(data, images=Read(data.images))
    with pytest.raises(ValueError, match="images must be in memory, got 8 images that are read"):
        chosen(network, Threshold(), data=read)
