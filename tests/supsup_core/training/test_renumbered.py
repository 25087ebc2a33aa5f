"""Tasks that renumber their labels train and are measured as on data with these labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from supsup_core.data import ImageSet
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.signed import Signed
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.mlp import MLP
from supsup_core.networks.units import UnitMLP
from supsup_core.tasks.protocol import Task
from supsup_core.training.autograd import AutogradTrainer
from supsup_core.training.blocks import MLPTrainer
from supsup_core.training.choose import trainer_for
from supsup_core.training.measure import measure_for
from supsup_core.training.recipe import Recipe
from supsup_core.training.resident import ResidentTrainer
from supsup_core.training.resident_measure import ResidentMeasure
from supsup_core.training.units import UnitTrainer

CPU = torch.device("cpu")
RECIPE = Recipe(steps=9, batch_size=16, learning_rate=0.05)
DENSE = MLP("dense", (16, 12, 6))
UNITS = UnitMLP("units", (16, 12, 6))
CLASSES = ((5, 2, 7), (0, 1, 6))  # the data have more classes than the network has outputs


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = (np.arange(160) % 8).astype(np.uint16)
    images = (labels[:, None] * 9 + rng.integers(0, 180, (160, 16))).astype(np.uint8)
    return ImageSet(images, labels, (0.4,), (0.3,))


def relabelled(data):
    """Return the data with the label of each class that its task gives it."""
    labels = np.zeros_like(data.labels)
    for classes in CLASSES:
        for new, old in enumerate(classes):
            labels[data.labels == old] = new
    return replace(data, labels=labels)


class Chosen(Task):
    """A task that shows the images of its classes in `old`, whatever their labels are."""

    old = None

    def members(self, labels):
        return np.flatnonzero(np.isin(self.old.labels, self.classes))


def resident(data):
    measure = ResidentMeasure(DENSE, layout_of(DENSE, Threshold()), data, 0, CPU)
    options = {"seed": 0, "dtype": torch.float32, "device": CPU}
    return ResidentTrainer(DENSE, Threshold(), data, measure, RECIPE, **options)


def integer_autograd(data):
    measure = measure_for(DENSE, layout_of(DENSE, Signed()), data, 0, CPU)
    options = {"seed": 0, "dtype": torch.float32, "device": CPU}
    return AutogradTrainer(DENSE, Signed(), data, measure, RECIPE, **options)


TRAINERS = {
    "block": (DENSE, Threshold(), MLPTrainer, lambda d: chosen(DENSE, Threshold(), d)),
    "autograd": (DENSE, Signed(), AutogradTrainer, integer_autograd),
    "units": (UNITS, Threshold(), UnitTrainer, lambda d: chosen(UNITS, Threshold(), d)),
    "resident": (DENSE, Threshold(), ResidentTrainer, resident),
}


def chosen(network, method, data):
    return trainer_for(network, method, data, data, RECIPE, seed=0)


def outcome(trainer, tasks, layout):
    states = trainer.side_by_side([tasks])
    measured = trainer.measure_each(tasks, states)
    return layout.pack(states), [(one.accuracy, one.loss) for one in measured]


@pytest.mark.parametrize("name", TRAINERS)
def test_each_trainer_learns_the_new_labels(name, data, monkeypatch):
    network, method, kind, make = TRAINERS[name]
    layout = layout_of(network, method)
    trainer = make(data)
    assert type(trainer) is kind
    renumbering = [Task(i, classes=own, renumbers=True) for i, own in enumerate(CLASSES)]
    rows, found = outcome(trainer, renumbering, layout)
    monkeypatch.setattr(Chosen, "old", data)
    plain = [Chosen(i, classes=own) for i, own in enumerate(CLASSES)]
    expected_rows, expected = outcome(make(relabelled(data)), plain, layout)
    assert np.array_equal(rows, expected_rows)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    if network is DENSE:
        assert min(accuracy for accuracy, _ in found) > 0.4  # chance is 1/3 or less
