"""Fixtures for the tests of supsup_core: a few images, recipes, tasks and trained masks."""

import jaxtyping
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from supsup_core import names
from supsup_core.data import ImageSet
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.mlp import MLP, mlp
from supsup_core.tasks.make import make_task
from supsup_core.tasks.protocol import Setting
from supsup_core.training.autograd import AutogradTrainer
from supsup_core.training.choose import trainer_for
from supsup_core.training.measure import measure_for
from supsup_core.training.recipe import Recipe


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def tiny():
    return MLP("tiny", (16, 12, 8, 6))


@pytest.fixture(scope="session")
def few_images():
    """60 random images of 4x4 pixels, with ten images in each of 6 classes."""
    images = np.random.default_rng(1).integers(0, 256, (60, 16), dtype=np.uint8)
    labels = np.arange(60, dtype=np.uint8) % 6
    return ImageSet(images, labels, mean=(0.5,), std=(0.29,))


@pytest.fixture(scope="session")
def digits():
    """The 8x8 digits as (training, test) sets. Every fifth image is in the test set."""
    pixels, labels = load_digits(return_X_y=True)
    images, labels = (15 * pixels).astype(np.uint8), labels.astype(np.uint8)
    is_test = np.arange(len(labels)) % 5 == 0
    return tuple(
        ImageSet(images[s], labels[s], mean=(0.29,), std=(0.35,)) for s in (~is_test, is_test)
    )


@pytest.fixture(
    params=[("rmsprop", 0.0, 1e-2), ("adam", 0.9, 3e-2), ("sgd", 0.0, 1.0), ("sgd", 0.9, 0.1)],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
def brief(request):
    """A recipe for each optimiser, with a learning rate that changes many mask bits in 20 steps."""
    name, momentum, learning_rate = request.param
    return Recipe(20, 8, learning_rate, optimizer=name, momentum=momentum)


@pytest.fixture
def optimizer(brief):
    """The optimiser of each recipe in `brief`."""
    return brief.make_optimizer()


@pytest.fixture(scope="session")
def make_tasks():
    """A function that makes tasks for square images from a family's name and options."""

    def make(family, task_ids=(0, 1, 2), *, side=4, num_classes=6, num_tasks=3, seed=0, **options):
        known = names.load("family", names.FAMILIES, family)(**options)
        setting = Setting(seed, num_tasks, (side, side), num_classes)
        return [make_task(known, i, setting) for i in task_ids]

    return make


@pytest.fixture(scope="session")
def train_block():
    """A function that trains a block with the trainer of `trainer_for`, or with the plain trainer.

    The function returns a list with a bool array (B, *shape) for each plane of the layout. If
    `stages` is given, the function returns an iterator with one such list per stage.
    """

    def train(
        network,
        tasks,
        data,
        recipe,
        *,
        method=Threshold(),  # noqa: B008
        dtype=torch.float32,
        seed=0,
        plain=False,
        stages=None,
        on_step=None,
    ):
        if plain:
            measure = measure_for(
                network, layout_of(network, method), data, seed, torch.device("cpu")
            )
            trainer = AutogradTrainer(
                *(network, method, data, measure, recipe),
                seed=seed,
                dtype=dtype,
                device=torch.device("cpu"),
            )
        else:
            trainer = trainer_for(network, method, data, data, recipe, seed=seed, dtype=dtype)
        shown = (
            [np.stack(plane) for plane in zip(*(state.planes for state in states), strict=True)]
            for states, _ in trainer.stages(tasks, stages or [recipe.steps], on_step=on_step)
        )
        return shown if stages else next(shown)

    return train


@pytest.fixture(scope="session")
def six_permutations(digits, make_tasks):
    """(network, tasks, packed rows) of masks trained on six permutations of the digits."""
    network, method = mlp((64,), 60, hidden=[64]), Threshold()
    tasks = make_tasks("permuted", range(6), side=8, num_classes=10, num_tasks=6)
    recipe = Recipe(steps=200, batch_size=128, learning_rate=1e-3)
    trainer = trainer_for(network, method, *digits, recipe, seed=0)
    ((states, _),) = trainer.stages(tasks, [recipe.steps])
    return network, tasks, layout_of(network, method).pack(states)


@pytest.fixture
def no_shape_checks(monkeypatch):
    """Turn off the checks of annotations, which would fail before the package's own checks."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
