"""What the tests of supsup_core share: a few images, recipes, and masks that have learnt."""

import jaxtyping
import numpy as np
import pytest
from sklearn.datasets import load_digits

from supsup_core.data import ImageSet
from supsup_core.methods import Threshold
from supsup_core.networks.mlp import Network, make_network
from supsup_core.states.layout import MaskLayout
from supsup_core.tasks.make import make_task
from supsup_core.training.blocks import train_block
from supsup_core.training.recipe import Recipe


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def tiny():
    return Network("tiny", (16, 12, 8, 6))


@pytest.fixture(scope="session")
def few_images():
    """60 random images of 4x4 pixels, ten of each of 6 classes."""
    images = np.random.default_rng(1).integers(0, 256, (60, 16), dtype=np.uint8)
    labels = np.arange(60, dtype=np.uint8) % 6
    return ImageSet(images, labels, mean=0.5, std=0.29)


@pytest.fixture(scope="session")
def digits():
    """The 8x8 digits, (training, test); every fifth image is for the test."""
    pixels, labels = load_digits(return_X_y=True)
    images, labels = (15 * pixels).astype(np.uint8), labels.astype(np.uint8)
    is_test = np.arange(len(labels)) % 5 == 0
    return tuple(ImageSet(images[s], labels[s], mean=0.29, std=0.35) for s in (~is_test, is_test))


@pytest.fixture(
    params=[("rmsprop", 0.0, 1e-2), ("adam", 0.9, 3e-2), ("sgd", 0.0, 1.0), ("sgd", 0.9, 0.1)],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
def brief(request):
    """A recipe of every optimiser, at a rate that changes a good part of the masks in 20 steps."""
    name, momentum, learning_rate = request.param
    return Recipe(20, 8, learning_rate, optimizer=name, momentum=momentum)


@pytest.fixture
def optimizer(brief):
    """Every optimiser."""
    return brief.make_optimizer()


@pytest.fixture(scope="session")
def six_permutations(digits):
    """Network, tasks, and packed rows of masks trained on six permutations of the digits."""
    network = make_network("mlp", 64, 60, hidden=[64])
    tasks = [
        make_task("permuted", i, seed=0, num_tasks=6, side=8, num_classes=10) for i in range(6)
    ]
    recipe = Recipe(steps=200, batch_size=128, learning_rate=1e-3)
    masks = train_block(network, Threshold(), tasks, digits[0], recipe, seed=0)
    return network, tasks, MaskLayout.of(network).pack(masks)


@pytest.fixture
def no_shape_checks(monkeypatch):
    """For the package's own refusals, which the checks of annotations would forestall."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
