import numpy as np
import pytest
import torch

from supsup_core.data import ImageSet
from supsup_core.kernels.scoring import score_fused
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.signed import Signed
from supsup_core.methods.threshold import Threshold
from supsup_core.names import FAMILIES
from supsup_core.networks.mlp import MLP
from supsup_core.networks.units import UnitMLP
from supsup_core.states.layout import PlaneSpec, StateLayout, TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training import measure
from supsup_core.training.measure import IntegerMeasure, PlainMeasure, measure_for

CPU = torch.device("cpu")


@pytest.fixture(params=[(16, 6), (16, 24, 20, 6)], ids=["one layer", "three layers"])
def network(request):
    return MLP("any", request.param)


@pytest.fixture(params=[Threshold(), Signed()], ids=["keep", "signed"])
def layout(request, network):
    return layout_of(network, request.param)


@pytest.fixture(autouse=True)
def _parts_of_seven(monkeypatch):
    monkeypatch.setattr(measure, "_IMAGES_AT_ONCE", 7)


def both_forms(network, layout, data):
    return IntegerMeasure(network, layout, data, 0), PlainMeasure(network, layout, data, 0, CPU)


def drawn_state(rng, layout):
    """Draw a random state. A negative plane is a subset of the plane before."""
    planes = []
    for plane in layout.planes:
        is_negative = plane.spec.role == "negative"
        bits = rng.random(plane.shape) < (0.3 if is_negative else 0.75)
        planes.append(bits & planes[-1] if is_negative else bits)
    return TaskState(tuple(planes))


def found(measured):
    return measured.accuracy, measured.loss


def expected(network, layout, data, task, state):
    """Compute accuracy and loss in float64, without the package's forward pass.

    Returns:
        (accuracy, loss), or None if rounding could change the accuracy.
    """
    members = task.members(data.labels)
    x = (task.images(data.images[members]) / 255 - data.mean[0]) / data.std[0]
    for i, (name, weight) in enumerate(network.weights(0).items()):
        gain = sum(
            plane.spec.coefficient * bits
            for plane, bits in zip(layout.planes, state.planes, strict=True)
            if plane.tensor == name
        )
        x = (np.maximum(x, 0) if i else x) @ (weight.double().numpy() * gain).T
    first, second = np.sort(x, axis=1)[:, :-3:-1].T
    if (first - second).min() < 1e-3:
        return None  # the two largest outputs are so close that rounding could change the answer
    labels = data.labels[members].astype(int)
    losses = np.log(np.exp(x).sum(axis=1)) - x[range(len(x)), labels]
    return (x.argmax(axis=1) == labels).mean(), pytest.approx(losses.mean(), abs=1e-5)


def clear_state(rng, network, layout, data, task):
    """Draw a state whose accuracy rounding cannot change, and compute its (accuracy, loss)."""
    for _ in range(10):
        state = drawn_state(rng, layout)
        if wanted := expected(network, layout, data, task, state):
            return state, wanted
    raise AssertionError("no state is clear")


@pytest.mark.parametrize(
    ("family", "options"),
    [
        *((family, {}) for family in FAMILIES),
        ("rotated", {"interpolation": "bilinear"}),
        ("permuted_rotated", {"interpolation": "bilinear"}),
    ],
)
def test_integers_measure_what_floats_measure(
    rng, few_images, family, options, network, layout, make_tasks
):
    # 60 images make eight parts of 7 images and one part of 4.
    forms = both_forms(network, layout, few_images)
    accuracies = set()
    for task in make_tasks(family, **options):
        state, wanted = clear_state(rng, network, layout, few_images, task)
        for form in forms:
            assert found(form(task, state)) == wanted
        accuracies.add(wanted[0])
    assert len(accuracies) > 1  # otherwise all of them could be 0


def test_parts_without_an_image_of_the_task_add_nothing(rng, few_images, network, layout):
    order = np.argsort(few_images.labels, kind="stable")  # ten images per class, parts of 7
    data = ImageSet(few_images.images[order], few_images.labels[order], mean=(0.5,), std=(0.29,))
    task = Task(0, classes=(2, 3))
    state, wanted = clear_state(rng, network, layout, data, task)
    for form in both_forms(network, layout, data):
        assert found(form(task, state)) == wanted


def test_measuring_changes_nothing(rng, few_images, network, layout):
    images, state = few_images.images.copy(), drawn_state(rng, layout)
    copies = [bits.copy() for bits in state.planes]
    for form in both_forms(network, layout, few_images):
        assert form(Task(0), state) == form(Task(0), state)
    assert np.array_equal(images, few_images.images)
    assert all(np.array_equal(*pair) for pair in zip(state.planes, copies, strict=True))


@pytest.mark.parametrize("method", [Threshold(), Signed()], ids=["keep", "signed"])
def test_sums_of_the_first_layer_are_exact(rng, monkeypatch, method):
    """Include the largest possible sums, from white and black images and masks of ones."""
    images = rng.integers(0, 256, (30, 784), dtype=np.uint8)
    images[:2] = [[0], [255]]
    # With a mean of 128 and a deviation of 1, each term of a sum is sign * (pixel - 128).
    data = ImageSet(images, np.zeros(30, dtype=np.uint8), mean=(128 / 255,), std=(1 / 255,))
    signs = rng.choice([-1, 1], (8, 784))
    signs[:2] = [[1], [-1]]
    network = MLP("one", (784, 8))
    weights = {"layer1": torch.from_numpy(signs).float()}
    monkeypatch.setattr(MLP, "weights", lambda self, seed: weights)
    layout = layout_of(network, method)
    state = drawn_state(rng, layout)
    for plane, bits in zip(layout.planes, state.planes, strict=True):
        bits[:2] = plane.spec.role == "keep"
    gain = sum(p.spec.coefficient * b for p, b in zip(layout.planes, state.planes, strict=True))
    seen = []

    def spy(logits, labels):
        seen.append(logits)
        return score_fused(logits, labels)

    monkeypatch.setattr(measure, "score_fused", spy)
    IntegerMeasure(network, layout, data, 0)(Task(0), state)
    sums = (signs * gain) @ (images.astype(int) - 128).T
    assert np.array_equal(torch.cat(seen, dim=1).numpy(), sums)
    assert np.abs(sums).max() == 784 * 128


@pytest.mark.parametrize(
    ("family", "batch_shares"), [("permuted", False), ("split", False), ("permuted", True)]
)
def test_a_network_that_normalises_is_measured_on_many_images_at_a_time(
    rng, few_images, family, batch_shares, make_tasks, monkeypatch
):
    """Measure on all images of a task, or on strided parts, because data may be sorted by class."""
    monkeypatch.setattr(measure, "MEASURED_TOGETHER", 20 if batch_shares else 250)
    network = UnitMLP("units", (16, 40, 6))
    layout = layout_of(network, Threshold())
    state, task = drawn_state(rng, layout), make_tasks(family)[1]
    members = task.members(few_images.labels)
    right, losses = [], []
    for part in [members[i::3] for i in range(3)] if batch_shares else [members]:
        x = (task.images(few_images.images[part]) / 255 - 0.5) / 0.29
        first, last = (weight.double().numpy() for weight in network.weights(0).values())
        drives = x @ first.T
        drives = (drives - drives.mean(axis=0)) / np.sqrt(drives.var(axis=0) + 1e-5)
        drives *= state.planes[0]
        logits = (drives / (1 + np.exp(-drives))) @ last.T
        labels = few_images.labels[part].astype(int)
        right += [logits.argmax(axis=1) == labels]
        losses += [np.log(np.exp(logits).sum(axis=1)) - logits[range(len(logits)), labels]]
    loss = pytest.approx(np.concatenate(losses).mean(), abs=1e-5)
    measured = PlainMeasure(network, layout, few_images, 0, CPU)(task, state)
    assert found(measured) == (np.concatenate(right).mean(), loss)


def test_device_network_and_states_choose_the_form(monkeypatch, few_images):
    network, cuda = MLP("any", (16, 6)), torch.device("cuda")
    keep, signed = (layout_of(network, method) for method in (Threshold(), Signed()))
    halves = StateLayout.of([(network.tensors[0], [PlaneSpec("keep", 0.5)])])

    def form(layout, network=network, data=few_images):
        return type(measure_for(network, layout, data, 0, CPU))

    assert form(keep) is IntegerMeasure
    assert form(signed) is IntegerMeasure
    assert form(halves) is PlainMeasure
    units = UnitMLP("units", (16, 9, 6))
    assert form(layout_of(units, Threshold()), units) is PlainMeasure
    coloured = ImageSet(
        few_images.images.reshape(60, 4, 2, 2), few_images.labels, (0.5,) * 4, (0.29,) * 4
    )
    assert form(keep, MLP("any", (16, 6), (4, 2, 2)), coloured) is PlainMeasure
    monkeypatch.setattr(measure, "LARGEST_SUM", 16 * 128 - 1)
    assert form(keep) is PlainMeasure
    made = []

    class OnDevice(PlainMeasure):
        def __init__(self, *given):
            made.append(given[-1])

    monkeypatch.setattr(measure, "PlainMeasure", OnDevice)
    measure_for(network, keep, few_images, 0, cuda)
    assert made == [cuda]
