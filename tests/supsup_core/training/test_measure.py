import numpy as np
import pytest
import torch

from supsup_core.data import ImageSet
from supsup_core.kernels.scoring import score_fused
from supsup_core.networks.mlp import Network, fixed_weights
from supsup_core.tasks import FAMILIES, Task
from supsup_core.tasks.make import make_task
from supsup_core.training import measure
from supsup_core.training.measure import IntegerMeasure, Measure, measure_form

CPU = torch.device("cpu")


@pytest.fixture(params=[(16, 6), (16, 24, 20, 6)], ids=["one layer", "three layers"])
def weights(request):
    return fixed_weights(Network("any", request.param), seed=0)


@pytest.fixture(autouse=True)
def _parts_of_seven(monkeypatch):
    monkeypatch.setattr(measure, "_IMAGES_AT_ONCE", 7)


def drawn_masks(rng, weights):
    return [rng.random(weight.shape) < 0.75 for weight in weights]


def expected(weights, data, task, mask):
    """Accuracy and loss in float64, with nothing of the package but the task's images."""
    members = task.members(data.labels)
    x = (task.images(data.images[members]) / 255 - data.mean) / data.std
    for i, (weight, kept) in enumerate(zip(weights, mask, strict=True)):
        x = (np.maximum(x, 0) if i else x) @ (weight.double().numpy() * kept).T
    first, second = np.sort(x, axis=1)[:, :-3:-1].T
    assert (first - second).min() > 1e-3  # or rounding would choose
    labels = data.labels[members].astype(int)
    losses = np.log(np.exp(x).sum(axis=1)) - x[range(len(x)), labels]
    return (x.argmax(axis=1) == labels).mean(), losses.mean()


@pytest.mark.parametrize("family", FAMILIES)
def test_integers_measure_what_floats_measure(rng, few_images, family, weights):
    # 60 images: eight parts of 7, and 4 are left.
    integers, floats = (form(weights, few_images, CPU) for form in (IntegerMeasure, Measure))
    accuracies = set()
    for task_id in range(3):
        task = make_task(family, task_id, seed=0, num_tasks=3, side=4, num_classes=6)
        mask = drawn_masks(rng, weights)
        accuracy, loss = expected(weights, few_images, task, mask)
        for measured in (integers(task, mask), floats(task, mask)):
            assert measured == (accuracy, pytest.approx(loss, abs=1e-5))
        accuracies.add(accuracy)
    assert len(accuracies) > 1  # or all of them could be 0


def test_parts_without_an_image_of_the_task_add_nothing(rng, few_images, weights):
    order = np.argsort(few_images.labels, kind="stable")  # ten images a class, parts of 7
    data = ImageSet(few_images.images[order], few_images.labels[order], mean=0.5, std=0.29)
    mask, task = drawn_masks(rng, weights), Task(0, classes=(2, 3))
    accuracy, loss = expected(weights, data, task, mask)
    measured = IntegerMeasure(weights, data, CPU)(task, mask)
    assert measured == (accuracy, pytest.approx(loss, abs=1e-5))


def test_measuring_changes_nothing(rng, few_images, weights):
    images, copies = few_images.images.copy(), [weight.clone() for weight in weights]
    for form in (IntegerMeasure, Measure):
        measured = form(weights, few_images, CPU)
        mask = drawn_masks(rng, weights)
        assert measured(Task(0), mask) == measured(Task(0), mask)
    assert np.array_equal(images, few_images.images)
    assert all(torch.equal(*pair) for pair in zip(weights, copies, strict=True))


def test_sums_of_the_first_layer_are_exact(rng, monkeypatch):
    """Also the largest there are, of white or black images under all of the weights."""
    images = rng.integers(0, 256, (30, 784), dtype=np.uint8)
    images[:2] = [[0], [255]]
    # A mean of 128 and a deviation of 1: what is left is sign * (pixel - 128).
    data = ImageSet(images, np.zeros(30, dtype=np.uint8), mean=128 / 255, std=1 / 255)
    signs = rng.choice([-1, 1], (8, 784))
    signs[:2] = [[1], [-1]]
    mask = rng.random((8, 784)) < 0.5
    mask[:2] = True
    seen = []

    def spy(logits, labels):
        seen.append(logits)
        return score_fused(logits, labels)

    monkeypatch.setattr(measure, "score_fused", spy)
    IntegerMeasure([torch.from_numpy(signs).float()], data, CPU)(Task(0), [mask])
    sums = (signs * mask) @ (images.astype(int) - 128).T
    assert np.array_equal(torch.cat(seen, dim=1).numpy(), sums)
    assert np.abs(sums).max() == 784 * 128


def test_device_chooses_the_form(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": True})
    assert measure_form(CPU) is IntegerMeasure
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "aarch64"})
    assert measure_form(CPU) is Measure
    assert measure_form(torch.device("cuda")) is Measure
