"""Training and measuring of masks over units with all data on a GPU, real or pretended."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from pretended_cuda import CUDA, PretendedCuda
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.units import UnitMLP, WholePixels
from supsup_core.states.layout import TaskState
from supsup_core.training import resident_units
from supsup_core.training.choose import trainer_for
from supsup_core.training.recipe import Recipe
from supsup_core.training.resident_unit_measure import ResidentUnitMeasure
from supsup_core.training.resident_unit_tensors import UnitForm
from supsup_core.training.resident_units import ResidentUnitTrainer
from supsup_core.training.units import UnitMeasure, UnitTrainer

CPU = torch.device("cpu")
NETWORK = UnitMLP("units", (64, 96, 40, 10), (1, 8, 8))
SGD = Recipe(12, 32, 0.1, optimizer="sgd", momentum=0.9, weight_decay=1e-2, temperature=1.5)
CASES = {  # each family and each optimiser once
    "permuted": SGD,
    "rotated": replace(SGD, optimizer="adam", learning_rate=1e-2),
    "split": replace(SGD, optimizer="rmsprop", momentum=0.0, learning_rate=1e-3, decay="linear"),
}


def made(kind, digits, recipe, device=CPU):
    pixels = WholePixels(NETWORK, 0, digits[0].std[0], device)
    return kind(pixels, *digits, recipe, seed=0)


def planes_of(states):
    return [np.concatenate(state.planes) for state in states]


@pytest.mark.parametrize("family", CASES)
def test_masks_and_accuracies_are_those_of_the_simple_form(family, digits, make_tasks):
    recipe = CASES[family]
    tasks = make_tasks(family, side=8, num_classes=10)
    simple, on_cpu = (made(kind, digits, recipe) for kind in (UnitTrainer, ResidentUnitTrainer))
    steps = [0, 3, recipe.steps]
    expected = [states for states, _ in simple.stages(tasks, steps)]
    found = [states for states, _ in on_cpu.stages(tasks, steps)]
    for one, other in zip(found, expected, strict=True):
        # The optimisers are rounded differently.
        assert np.mean(np.array(planes_of(one)) == np.array(planes_of(other))) > 0.99
    assert (planes_of(found[0])[0] != planes_of(found[2])[0]).any()
    with PretendedCuda():
        trainer = trainer_for(NETWORK, Threshold(), *digits, recipe, seed=0, device=CUDA)
        assert type(trainer) is ResidentUnitTrainer
        ((on_gpu, _),) = trainer.stages(tasks, [recipe.steps])
        measured = trainer.measure_each(tasks, on_gpu)
    assert np.array_equal(planes_of(on_gpu), planes_of(found[2]))
    for state, task, one in zip(on_gpu, tasks, measured, strict=True):
        wanted = simple.measure(task, state)
        assert one.accuracy == wanted.accuracy
        assert one.loss == pytest.approx(wanted.loss, rel=1e-5)


@pytest.mark.parametrize("family", CASES)
def test_a_step_copies_nothing_and_waits_for_nothing(family, digits, make_tasks):
    tasks, marks = make_tasks(family, side=8, num_classes=10), []
    with PretendedCuda() as gpu:
        trainer = made(ResidentUnitTrainer, digits, CASES[family], CUDA)

        def on_step(done):
            marks.append((gpu.kernels, gpu.uploads + gpu.downloads, gpu.waits))

        trainer.side_by_side([tasks], on_step)
    steps = {tuple(b - a for a, b in zip(*pair, strict=True)) for pair in pairwise(marks)}
    ((launches, copies, waits),) = steps  # every step is the same
    assert (copies, waits) == (0, 0)
    assert launches < 150


@pytest.mark.parametrize("family", CASES)
def test_blocks_side_by_side_get_the_masks_of_each_block_alone(family, digits, make_tasks):
    tasks = make_tasks(family, range(5), side=8, num_classes=10, num_tasks=5)
    blocks, done = [tasks[:2], tasks[2:4], tasks[4:]], []
    trainer = made(ResidentUnitTrainer, digits, CASES[family])
    together = trainer.side_by_side(blocks, done.append)
    assert trainer._kept.form.tasks == 1  # the last block, which is smaller
    alone = [state for block in blocks for state in trainer.side_by_side([block])]
    assert np.array_equal(planes_of(together), planes_of(alone))
    assert done == sorted(done)
    assert done[-1] == CASES[family].steps
    with PretendedCuda():
        on_gpu = made(ResidentUnitTrainer, digits, CASES[family], CUDA).side_by_side(blocks)
    assert np.array_equal(planes_of(on_gpu), planes_of(alone))


@pytest.mark.parametrize("family", CASES)
def test_a_step_takes_no_more_memory_than_computed(family, digits, make_tasks, monkeypatch):
    tasks = make_tasks(family, range(4), side=8, num_classes=10, num_tasks=4)
    blocks = [tasks[:2], tasks[2:]]
    with PretendedCuda() as gpu:
        trainer = made(ResidentUnitTrainer, digits, CASES[family], CUDA)
        before = gpu.allocated_bytes
        trainer.side_by_side(blocks)
        taken = gpu.peak_bytes - before - trainer._images.num_bytes
        form = trainer._kept.form
        computed = form.num_bytes(trainer._network.widths)
    assert (form.tasks, form.groups) == (4, 4 if family == "split" else 2)
    assert 0.5 * computed < taken <= computed
    one = UnitForm.of(blocks[:1], form.images).num_bytes(trainer._network.widths)
    for free, most in ((0, 1), (2 * one, 1), (50 * one, 41)):
        trainer = made(ResidentUnitTrainer, digits, CASES[family])
        monkeypatch.setattr(resident_units, "free_bytes", lambda _, free=free: free)
        trainer._network.device = torch.device("cuda")
        assert trainer._most_blocks(blocks[0]) in range(most - 2, most + 2)


@pytest.mark.parametrize("options", [{}, {"interpolation": "bilinear"}])
def test_tasks_that_change_images_are_trained_by_the_host(options, digits, make_tasks):
    tasks = make_tasks("permuted_rotated", side=8, num_classes=10, **options)
    recipe = replace(SGD, steps=2)
    found, expected = (
        made(kind, digits, recipe).side_by_side([tasks])
        for kind in (ResidentUnitTrainer, UnitTrainer)
    )
    assert np.mean(np.array(planes_of(found)) == np.array(planes_of(expected))) > 0.99


@pytest.mark.parametrize("family", ["permuted", "rotated", "split", "permuted_rotated"])
def test_states_are_measured_with_one_wait(family, digits, make_tasks, rng):
    options = {"interpolation": "bilinear"} if family == "permuted_rotated" else {}
    tasks = make_tasks(family, side=8, num_classes=10, **options)
    shapes = [tensor.shape for tensor in NETWORK.tensors]
    states = [TaskState(tuple(rng.random(shape) < 0.5 for shape in shapes)) for _ in tasks]
    states[1] = TaskState(tuple(np.zeros(shape, bool) for shape in shapes))  # no unit is kept
    test = digits[1]
    expected = UnitMeasure(WholePixels(NETWORK, 0, test.std[0], CPU), test)
    with PretendedCuda() as gpu:
        measure = ResidentUnitMeasure(WholePixels(NETWORK, 0, test.std[0], CUDA), test)
        gpu.reset()
        found = measure.each(tasks, states)
        assert gpu.waits == gpu.downloads == 1
        if not options:  # the images stay on the GPU
            assert gpu.uploaded_bytes < len(tasks) * (16 * len(test.labels) + 16 * 64 + 2000)
    for one, task, state in zip(found, tasks, states, strict=True):
        wanted = expected(task, state)
        assert one.accuracy == wanted.accuracy
        assert one.loss == pytest.approx(wanted.loss, rel=1e-5)
