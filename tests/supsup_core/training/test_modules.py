"""Tests of ModuleTrainer, the fast trainer of torch.nn.Module networks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from supsup_core.data import ImageSet
from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.conv import small_conv
from supsup_core.networks.module import as_network
from supsup_core.networks.resnet import ResNet
from supsup_core.tasks.protocol import Task
from supsup_core.training.autograd import AutogradTrainer
from supsup_core.training.measure import measure_for
from supsup_core.training.modules import ModuleTrainer
from supsup_core.training.recipe import Recipe

CPU, SHAPE = torch.device("cpu"), (1, 8, 8)
OPTIONS = {"width": 2, "stem": "small", "norm": "batch", "init": "signed_constant"}
NETWORKS = {
    "resnet": as_network("resnet", ResNet(SHAPE, 4, "basic", (1, 1), **OPTIONS), SHAPE),
    "conv": as_network("conv", small_conv(SHAPE, 4, channels=(3, 4)), SHAPE),
}
ADAM = Recipe(4, 8, 1e-2, optimizer="adam", momentum=0.9, smoothing=0.999, temperature=1.5)
CHANGING = replace(ADAM, decay="cosine", warmup=2, augment="crop_flip")
SPLIT = [Task(0, classes=(0, 1)), Task(1, classes=(2, 3)), Task(2, classes=(1, 2))]


@pytest.fixture
def data(rng):
    labels = np.repeat(np.arange(4, dtype=np.uint8), 16)
    pixels = rng.integers(0, 256, (64, *SHAPE), dtype=np.uint8)
    return ImageSet(pixels, labels, (0.5,), (0.3,))


def trained(kind, network, method, data, recipe, tasks, dtype):
    measure = measure_for(network, layout_of(network, method), data, 0, CPU)
    trainer = kind(network, method, data, measure, recipe, seed=0, dtype=dtype, device=CPU)
    return [states for states, _ in trainer.stages(tasks, [0, recipe.steps])]


def assert_same(states, others, **limits):
    for state, other in zip(states, others, strict=True):
        for plane, wanted in zip(state.planes, other.planes, strict=True):
            assert np.array_equal(plane, wanted)
        for name, values in state.floats.items():
            np.testing.assert_allclose(values, other.floats[name], **limits)


@pytest.mark.parametrize(
    "recipe", [CHANGING, replace(ADAM, optimizer="sgd", learning_rate=0.5), Recipe(4, 8, 1e-2)]
)
@pytest.mark.parametrize("method", [Threshold(), EdgePopup(0.3)], ids=["threshold", "edge_popup"])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_states_are_those_of_the_plain_trainer(network, method, recipe, data):
    given = network, method, data, recipe, SPLIT, torch.float64
    begun, ended = trained(ModuleTrainer, *given)
    plain_begun, plain_ended = trained(AutogradTrainer, *given)
    assert_same(begun, plain_begun, rtol=0)
    assert_same(ended, plain_ended, rtol=1e-9)
    masks = zip(begun[0].planes, ended[0].planes, strict=True)
    assert any((before != after).any() for before, after in masks)


@pytest.mark.parametrize("method", [Threshold(), EdgePopup(0.3)], ids=["threshold", "edge_popup"])
def test_a_state_does_not_depend_on_the_other_tasks_of_its_block(method, data):
    def states(tasks):
        given = NETWORKS["resnet"], method, data, CHANGING, tasks, torch.float32
        return trained(ModuleTrainer, *given)[-1]

    together = states(SPLIT)
    alone = [states([task])[0] for task in SPLIT]
    assert_same(together, alone, rtol=0)
    reversed_block = states(SPLIT[::-1])
    assert_same(together, reversed_block[::-1], rtol=0)
