"""Training of blocks side by side, in the plain form with torch on the CPU."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from supsup_core.data import ImageSet
from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.mlp import MLP
from supsup_core.states.density import density
from supsup_core.states.layout import PackedState, TaskState
from supsup_core.training.blocks import MLPTrainer
from supsup_core.training.measure import PlainMeasure
from supsup_core.training.recipe import Recipe
from supsup_core.training.resident import ResidentTrainer
from supsup_core.training.resident_measure import ResidentMeasure
from supsup_core.training.resident_steps import PlainSteps

CPU = torch.device("cpu")
NETWORK = MLP("small", (64, 24, 12, 20))
RECIPE = Recipe(7, 32, 1e-3, smoothing=0.9)
RECIPES = {
    "rmsprop": RECIPE,
    "adam": replace(RECIPE, optimizer="adam", momentum=0.9),
    "sgd": replace(
        RECIPE, optimizer="sgd", momentum=0.9, learning_rate=1e-2, decay="linear", temperature=1.5
    ),
}
METHODS = {"threshold": Threshold(), "edge_popup": EdgePopup(0.3)}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 64), dtype=np.uint8)
    return ImageSet(images, rng.integers(0, 10, 300, dtype=np.uint8), (0.13,), (0.31,))


def never(task, state):
    raise AssertionError("no test of training measures")


def make(kind, data, method=METHODS["threshold"], recipe=RECIPE, **options):
    """Make a trainer in float64 whose measure is never called."""
    return kind(
        *(NETWORK, method, data, never, recipe), seed=0, dtype=torch.float64, device=CPU, **options
    )


def packed(states, method=METHODS["threshold"]):
    return layout_of(NETWORK, method).pack(states)


@pytest.fixture
def blocks(make_tasks):
    """A function that makes three blocks of two tasks of a family."""

    def made(family, sizes=(2, 2, 2)):
        ends = np.cumsum([0, *sizes])
        return [
            make_tasks(family, range(i, end), side=8, num_classes=10, num_tasks=12)
            for i, end in pairwise(ends)
        ]

    return made


@pytest.mark.parametrize("family", ["permuted", "rotated"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_blocks_side_by_side_get_the_masks_of_each_block_alone(
    family, recipe, method, data, blocks
):
    given = blocks(family)
    together = packed(make(ResidentTrainer, data, method, recipe).side_by_side(given), method)
    one = make(ResidentTrainer, data, method, recipe)
    alone = [packed(next(one.stages(block, [recipe.steps]))[0], method) for block in given]
    other = make(MLPTrainer, data, method, recipe)
    by_blocks = packed(other.side_by_side(given), method)
    assert np.array_equal(together, np.concatenate(alone))
    assert np.array_equal(together, by_blocks)
    assert 0.2 < density(layout_of(NETWORK, method), together).mean() < 0.6


def test_blocks_of_different_sizes_are_trained_too(data, blocks):
    given = blocks("permuted", sizes=(3, 3, 1))
    found = make(ResidentTrainer, data).side_by_side(given)
    assert np.array_equal(packed(found), packed(make(MLPTrainer, data).side_by_side(given)))


def test_tasks_with_classes_keep_their_own_batches(data, make_tasks):
    given = [make_tasks("split", ids, num_classes=10, num_tasks=4) for ids in ((0, 1), (2, 3))]
    found = make(ResidentTrainer, data).side_by_side(given)
    assert np.array_equal(packed(found), packed(make(MLPTrainer, data).side_by_side(given)))


def test_tasks_that_change_images_are_trained_by_the_host(data, make_tasks):
    tasks = make_tasks(
        "rotated", range(3), side=8, num_classes=10, num_tasks=12, interpolation="bilinear"
    )
    ((found, _),) = make(ResidentTrainer, data).stages(tasks, [RECIPE.steps])
    assert np.array_equal(packed(found), packed(make(MLPTrainer, data).side_by_side([tasks])))


def test_stages_are_those_of_shorter_trainings(data, blocks):
    (block, *_) = blocks("permuted")
    done = []
    shown = make(ResidentTrainer, data).stages(block, [0, 3, 7], on_step=done.append)
    for steps, (states, _) in zip((0, 3, 7), shown, strict=True):
        # The learning rate is constant, so a shorter recipe takes the same first steps.
        trainer = make(MLPTrainer, data)
        ((expected, _),) = trainer.stages(block, [steps])
        assert np.array_equal(packed(states), packed(expected))
    assert done == list(range(1, 8))


def test_tables_are_refilled_when_their_steps_are_used_up(data, blocks, monkeypatch):
    given = blocks("permuted")
    expected = packed(make(ResidentTrainer, data).side_by_side(given))
    monkeypatch.setattr("supsup_core.training.resident_feed._TABLE_STEPS", 3)
    assert np.array_equal(packed(make(ResidentTrainer, data).side_by_side(given)), expected)


def test_the_tensors_of_blocks_of_one_form_are_used_again(data, blocks):
    trainer, given = make(ResidentTrainer, data), blocks("permuted")
    first = packed(trainer.side_by_side(given[:1]))
    kept = trainer._kept
    trainer.side_by_side(given[1:2])
    assert trainer._kept is kept
    assert np.array_equal(packed(trainer.side_by_side(given[:1])), first)


def test_steps_reported_by_groups_of_blocks_end_at_the_number_of_steps(data, blocks):
    done = []
    make(ResidentTrainer, data).side_by_side(blocks("permuted", (2, 2, 1)), done.append)
    assert done == sorted(done)
    assert done[-1] == RECIPE.steps


def test_a_packed_state_is_the_state_of_its_row(data, blocks):
    (states, _), *_ = make(ResidentTrainer, data).stages(blocks("permuted")[0], [RECIPE.steps])
    layout = layout_of(NETWORK, Threshold())
    rows = layout.pack(states)
    for state, row in zip(states, rows, strict=True):
        assert isinstance(state, PackedState)
        (expected,) = layout.unpack(row[None])
        assert all(map(np.array_equal, state.planes, expected.planes))
        assert not state.floats
        assert np.array_equal(layout.pack([TaskState(state.planes)]), row[None])
    with pytest.raises(AttributeError):
        _ = states[0].other


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("permuted", {}),
        ("rotated", {}),
        ("split", {}),
        ("permuted_rotated", {"interpolation": "bilinear"}),
    ],
)
def test_states_are_measured_as_by_the_plain_form(family, options, data, make_tasks):
    tasks = make_tasks(family, range(3), side=8, num_classes=10, num_tasks=5, **options)
    layout = layout_of(NETWORK, Threshold())
    rng = np.random.default_rng(1)
    states = [TaskState(tuple(rng.random(t.shape) < 0.5 for t in NETWORK.tensors)) for _ in tasks]
    plain = PlainMeasure(NETWORK, layout, data, 0, CPU)
    resident = ResidentMeasure(NETWORK, layout, data, 0, CPU)
    for found, task, state in zip(resident.each(tasks, states), tasks, states, strict=True):
        expected = plain(task, state)
        assert found.accuracy == expected.accuracy
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)
        assert resident(task, state) == found


def test_memory_of_blocks_is_computed_before_it_is_taken(data, blocks):
    given, trainer = blocks("rotated"), make(ResidentTrainer, data)
    expected = trainer.memory(given[0])
    assert trainer._kept is None
    trainer.side_by_side(given)
    taken = trainer._kept.num_bytes + trainer._kept.scratch_bytes
    assert taken == expected.first + 2 * expected.another
    assert expected.needed(3) - expected.temporary == taken > 0


def test_too_little_memory_halves_the_blocks_and_says_so(data, blocks, monkeypatch):
    given = blocks("permuted", sizes=(2, 2, 2, 2))
    expected = packed(make(ResidentTrainer, data).side_by_side(given))
    trainer, done = make(ResidentTrainer, data), []
    as_made = trainer._tensors

    def small(form):
        if form.tasks > 2:
            raise torch.OutOfMemoryError("pretended")
        return as_made(form)

    monkeypatch.setattr(trainer, "_tensors", small)
    with pytest.warns(RuntimeWarning, match="memory for [42] blocks of 2 tasks") as warned:
        found = trainer.side_by_side(given, done.append)
    assert len(warned) == 2
    assert np.array_equal(packed(found), expected)
    assert done == sorted(done)
    assert done[-1] == RECIPE.steps
    monkeypatch.setattr(trainer, "_tensors", lambda form: small(replace(form, tasks=3)))
    with pytest.raises(torch.OutOfMemoryError):
        trainer.side_by_side(given[:1])


def test_too_little_memory_to_measure_halves_the_masks_and_says_so(data, make_tasks, monkeypatch):
    tasks = make_tasks("permuted", range(5), side=8, num_classes=10, num_tasks=5)
    rng, layout = np.random.default_rng(1), layout_of(NETWORK, Threshold())
    states = [TaskState(tuple(rng.random(t.shape) < 0.5 for t in NETWORK.tensors)) for _ in tasks]
    measure = ResidentMeasure(NETWORK, layout, data, 0, CPU)
    expected, as_before = measure.each(tasks, states), measure._some

    def small(some, rows):
        if len(some) > 2:
            raise torch.OutOfMemoryError("pretended")
        return as_before(some, rows)

    monkeypatch.setattr(measure, "_some", small)
    with pytest.warns(RuntimeWarning, match="memory for 5 masks to measure, got too little: 2 ma"):
        assert measure.each(tasks, states) == expected
    assert measure.each(tasks, states) == expected  # without a warning


class Uncompiled(PlainSteps):
    """Parts of a step of which one part cannot be compiled."""

    def back(self, masked, delta, active, out):
        raise RuntimeError("out of resource: shared memory, Required: 98304\nmore lines")


def test_kernels_that_do_not_compile_are_replaced_once_and_said(data, blocks):
    given = blocks("permuted")
    expected = packed(make(ResidentTrainer, data).side_by_side(given))
    trainer = make(ResidentTrainer, data)
    trainer.parts = Uncompiled()
    with pytest.warns(RuntimeWarning, match="Triton must compile .* memory, Required: 98304: "):
        found = trainer.side_by_side(given)
    assert np.array_equal(packed(found), expected)
    assert np.array_equal(packed(trainer.side_by_side(given)), expected)  # without a warning
    given = make(ResidentTrainer, data, parts=Uncompiled())  # the caller wants these parts
    with pytest.raises(RuntimeError, match="out of resource"):
        given.side_by_side(blocks("permuted"))
