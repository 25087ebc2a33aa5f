import hashlib
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest
import torch

from supsup_core.data import ImageSet, normalise
from supsup_core.methods.planes import KeepMethod
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.names import FAMILIES
from supsup_core.networks.mlp import forward, mlp
from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training import blocks
from supsup_core.training.batches import task_batches
from supsup_core.training.fused_layers import FusedThresholdLayer
from supsup_core.training.layers import BlockLayer, backpropagate, layer_gradients
from supsup_core.training.recipe import Recipe

METHOD = Threshold()
# At this learning rate, 20 steps change many bits of the masks.
BRIEF = Recipe(steps=20, batch_size=8, learning_rate=1e-2)


@pytest.fixture
def block(train_block):
    """A function that trains a block in float64 and returns bool (B, O, I) for each layer."""

    def train(network, tasks, data, recipe=BRIEF, dtype=torch.float64, **more):
        return train_block(network, tasks, data, recipe, dtype=dtype, **more)

    return train


def pack(network, masks):
    states = [TaskState(planes) for planes in zip(*masks, strict=True)]
    return layout_of(network, METHOD).pack(states)


def starts(network, task, seed=0):
    """Return the initial scores of a task, as one array per layer."""
    return list(METHOD.begin(network, task.task_id, seed).values())


def changed(network, tasks, masks):
    """Compute the share of bits that training has flipped, for each layer."""
    begun = [starts(network, task) for task in tasks]
    return [
        float(((np.stack(start) >= 0) != mask).mean())
        for start, mask in zip(zip(*begun, strict=True), masks, strict=True)
    ]


def accuracies(network, tasks, masks, data, seed=0):
    """Compute the accuracy of each task's mask on the task's images."""
    found = []
    for b, task in enumerate(tasks):
        kept = [
            weight * torch.from_numpy(mask[b])
            for weight, mask in zip(network.weights(seed).values(), masks, strict=True)
        ]
        images = normalise(torch.from_numpy(task.images(data.images)), data.mean, data.std)
        guesses = forward(kept, images).argmax(dim=1).numpy()
        found.append((guesses == data.labels).mean())
    return found


# Gradients


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("widths", [(16, 6), (16, 12, 8, 6)])
def test_handwritten_gradients_are_those_of_autograd(rng, shared, widths):
    num_tasks, num_images, scales = 3, 9, torch.tensor([0.37, 0.5, 0.2], dtype=torch.float64)
    masked = [
        torch.from_numpy(rng.integers(-1, 2, (num_tasks, o, i)).astype(np.float64))
        for i, o in pairwise(widths)
    ]
    x = torch.from_numpy(rng.standard_normal((*(() if shared else (num_tasks,)), 16, num_images)))
    labels = torch.from_numpy(rng.integers(0, 6, (num_tasks, num_images)))

    leaves = [m.clone().requires_grad_() for m in masked]
    activation = x.expand(num_tasks, -1, -1)
    for leaf in leaves[:-1]:
        activation = torch.relu(leaf @ activation)
    logits = scales[:, None, None] * (leaves[-1] @ activation)
    losses = [
        torch.nn.functional.cross_entropy(z.t(), y) for z, y in zip(logits, labels, strict=True)
    ]
    expected = torch.autograd.grad(sum(losses), leaves)

    passed = backpropagate(masked, x, labels, scales)
    found = [delta @ inputs.mT for _, delta, inputs in passed][::-1]
    assert all(gradient.abs().max() > 1e-3 for gradient in expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


# The block against the plain form


def assert_same(masks, others):
    for mask, other in zip(masks, others, strict=True):
        assert np.array_equal(mask, other)


@pytest.mark.parametrize("decay", ["none", "linear"])
@pytest.mark.parametrize("family", FAMILIES)
def test_block_trains_the_masks_of_the_plain_form(
    tiny, few_images, family, decay, block, make_tasks
):
    tasks, recipe = make_tasks(family), replace(BRIEF, decay=decay)
    masks = block(tiny, tasks, few_images, recipe)
    assert_same(masks, block(tiny, tasks, few_images, recipe, plain=True))
    assert min(changed(tiny, tasks, masks)) > 0.05


@pytest.mark.parametrize("family", ["rotated", "permuted_rotated"])
def test_block_of_interpolated_images_trains_the_masks_of_the_plain_form(
    tiny, few_images, family, block, make_tasks
):
    tasks = make_tasks(family, interpolation="bilinear")
    masks = block(tiny, tasks, few_images)
    assert_same(masks, block(tiny, tasks, few_images, plain=True))
    nearest = block(tiny, make_tasks(family), few_images)
    assert not np.array_equal(masks[0][1], nearest[0][1])


def test_block_takes_tasks_of_several_kinds(tiny, few_images, block, make_tasks):
    """A family of the user's own may leave the images of some tasks as they are."""
    tasks = [Task(0), *make_tasks("permuted", (1,)), *make_tasks("rotated", (2,))]
    masks = block(tiny, tasks, few_images)
    assert_same(masks, block(tiny, tasks, few_images, plain=True))


@pytest.mark.parametrize("temperature", [1.0, 1.5, 3.0])
@pytest.mark.parametrize("family", ["permuted", "split"])
def test_block_trains_the_masks_of_the_plain_form_by_every_optimizer(
    tiny, few_images, family, brief, temperature, block, make_tasks
):
    tasks, recipe = make_tasks(family), replace(brief, temperature=temperature, decay="linear")
    masks = block(tiny, tasks, few_images, recipe)
    assert_same(masks, block(tiny, tasks, few_images, recipe, plain=True))
    assert min(changed(tiny, tasks, masks)) > 0.02


def test_block_trains_the_masks_of_another_rule_too(tiny, few_images, brief, block, make_tasks):
    class Other(KeepMethod):  # not a Threshold, so it has no kernel
        def mask(self, tensor, scores):
            return scores >= 0.05

        def slope(self, tensor, scores):
            return 0.5 + scores.abs()

    tasks = make_tasks("permuted")
    masks = block(tiny, tasks, few_images, brief, method=Other())
    assert_same(masks, block(tiny, tasks, few_images, brief, method=Other(), plain=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_fused_layers_train_what_plain_ones_train(
    tiny, few_images, family, dtype, brief, monkeypatch, block, make_tasks
):
    """Compare the layer for any device, run here on the CPU, with the fused layer for the CPU."""
    tasks = make_tasks(family)
    masks = []
    for form in (FusedThresholdLayer, BlockLayer):
        monkeypatch.setattr(blocks, "layer_form", lambda method, tensor, device, form=form: form)
        masks.append(block(tiny, tasks, few_images, brief, dtype))
    for fused, plain in zip(*masks, strict=True):
        # Rounding differs in the last bit, so a score that is almost 0 may get another sign.
        assert (fused != plain).mean() < (0.002 if dtype == torch.float32 else 0.02)


def test_task_without_an_image_is_named(tiny, few_images, block, make_tasks):
    lonely = make_tasks("split", [3], num_tasks=4, num_classes=8)
    with pytest.raises(ValueError, match=r"task 3 needs images of classes \(6, 7\), got none"):
        block(tiny, lonely, few_images)


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"batch_size": 0}, {"learning_rate": 0.0}])
def test_recipe_that_cannot_train_is_refused(wrong):
    with pytest.raises(ValueError, match="steps must be >= 0, batch_size >= 1"):
        Recipe(**{"steps": 1, "batch_size": 1, "learning_rate": 0.1} | wrong)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"decay": "step"}, "decay must be one of none, linear, cosine, got 'step'"),
        ({"warmup": -1}, "warmup must be >= 0, got -1"),
        ({"augment": "turn"}, "augment must be one of none, crop, crop_flip, got 'turn'"),
        ({"optimizer": "adagrad"}, "optimizer must be one of rmsprop, adam, sgd, got 'adagrad'"),
        ({"momentum": 0.9}, "momentum must be 0 with rmsprop, got 0.9"),
    ],
)
def test_recipe_of_what_is_not_known_is_refused(wrong, reason):
    with pytest.raises(ValueError, match=reason):
        Recipe(1, 1, 0.1, **wrong)


def test_block_without_steps_leaves_the_masks_of_the_initial_scores(
    tiny, few_images, block, make_tasks
):
    tasks = make_tasks("permuted")
    masks = block(tiny, tasks, few_images, Recipe(steps=0, batch_size=8, learning_rate=1e-2))
    for b, task in enumerate(tasks):
        for mask, start in zip(masks, starts(tiny, task), strict=True):
            assert np.array_equal(mask[b], start >= 0)


@pytest.mark.parametrize("family", ["rotated", "permuted_rotated", "split"])
def test_block_reads_the_very_images_and_labels_of_the_plain_form(
    tiny, few_images, family, monkeypatch, block, make_tasks
):
    seen = []

    def spy(layers, x, labels, constant):
        seen.append((x, labels))
        return layer_gradients(layers, x, labels, constant)

    monkeypatch.setattr(blocks, "layer_gradients", spy)
    tasks = make_tasks(family)
    block(tiny, tasks, few_images, Recipe(steps=3, batch_size=8, learning_rate=1e-2))
    steps = task_batches(tasks, few_images, BRIEF, seed=0)
    assert len(seen) == 3
    for (x, labels), index in zip(seen, steps, strict=False):
        for b, task in enumerate(tasks):
            pixels = torch.from_numpy(task.images(few_images.images[index[b]]))
            normal = normalise(pixels, few_images.mean, few_images.std)
            assert torch.equal(x[b], normal.t().double())
            assert labels[b].tolist() == few_images.labels[index[b]].tolist()


# The images of a batch


@pytest.mark.parametrize("family", ["permuted", "rotated", "permuted_rotated"])
def test_tasks_of_the_whole_data_set_share_batches_named_by_the_first(
    few_images, family, make_tasks
):
    def first(*task_ids):
        return next(task_batches(make_tasks(family, task_ids), few_images, BRIEF, seed=0))

    of_three = first(0, 1, 2)
    assert of_three.shape == (3, 8)
    assert (of_three == of_three[0]).all()
    assert np.array_equal(first(0, 1), of_three[:2])
    assert not np.array_equal(first(1, 2), of_three[1:])


def test_split_tasks_have_batches_of_their_own_classes_and_of_their_own(few_images, make_tasks):
    tasks = make_tasks("split")
    steps = list(islice(task_batches(tasks, few_images, BRIEF, seed=0), 5))
    for b, task in enumerate(tasks):
        alone = list(islice(task_batches([task], few_images, BRIEF, seed=0), 5))
        for together, single in zip(steps, alone, strict=True):
            assert set(few_images.labels[together[b]]) <= set(task.classes)
            assert np.array_equal(together[b], single[0])


def test_batches_of_a_block_have_the_size_of_its_smallest_task(few_images, make_tasks):
    large = Recipe(steps=1, batch_size=128, learning_rate=1e-2)
    few = ImageSet(few_images.images[:9], few_images.labels[:9], mean=(0.5,), std=(0.29,))
    (batch,) = islice(task_batches(make_tasks("split"), few, large, seed=0), 1)
    # The labels are 0 to 5, then 0, 1, 2. So the tasks have 4, 3 and 2 images.
    assert batch.shape == (3, 2)


# Dependence of a mask on its block


@pytest.mark.parametrize("family", ["permuted", "rotated", "permuted_rotated"])
def test_mask_depends_on_the_first_task_of_its_block_and_no_other_companion(
    tiny, few_images, family, block, make_tasks
):
    three = block(tiny, make_tasks(family), few_images)
    two = block(tiny, make_tasks(family, (0, 1)), few_images)
    for mask, other in zip(three, two, strict=True):
        assert np.array_equal(mask[:2], other)


def test_mask_of_a_split_task_depends_on_no_companion(tiny, few_images, block, make_tasks):
    together = block(tiny, make_tasks("split"), few_images)
    for b in range(3):
        alone = block(tiny, make_tasks("split", (b,)), few_images)
        for mask, other in zip(together, alone, strict=True):
            assert np.array_equal(mask[b], other[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_training_again_gives_the_same_bits(tiny, few_images, family, dtype, block, make_tasks):
    first, again = (block(tiny, make_tasks(family), few_images, dtype=dtype) for _ in range(2))
    assert all(np.array_equal(mask, other) for mask, other in zip(first, again, strict=True))


# The recipe


def test_linear_decay_falls_evenly_towards_zero():
    recipe = Recipe(steps=4, batch_size=8, learning_rate=0.8, decay="linear")
    rates = [recipe.learning_rate_at(step) for step in range(4)]
    assert rates == pytest.approx([0.8, 0.6, 0.4, 0.2])


def test_cosine_decay_falls_slowly_at_both_ends():
    recipe = Recipe(steps=4, batch_size=8, learning_rate=0.8, decay="cosine")
    rates = [recipe.learning_rate_at(step) for step in range(4)]
    assert rates == pytest.approx([0.8, 0.4 + 0.4 / 2**0.5, 0.4, 0.4 - 0.4 / 2**0.5])


@pytest.mark.parametrize(
    ("decay", "expected"),
    [("none", [0.8] * 3), ("linear", [0.8, 0.6, 0.4, 0.2]), ("cosine", [0.8])],
)
def test_the_rate_grows_before_it_decays(decay, expected):
    recipe = Recipe(steps=6, batch_size=8, learning_rate=0.8, decay=decay, warmup=2)
    rates = [recipe.learning_rate_at(step) for step in range(6)]
    assert rates[:2] == pytest.approx([0.4, 0.8])
    assert rates[2 : 2 + len(expected)] == pytest.approx(expected)
    assert decay == "none" or rates[-1] < rates[2]


def test_no_decay_keeps_the_rate():
    recipe = Recipe(steps=4, batch_size=8, learning_rate=0.8)
    assert [recipe.learning_rate_at(step) for step in range(4)] == [0.8] * 4


def test_block_obeys_every_part_of_the_recipe(tiny, few_images, block, make_tasks):
    recipes = [
        BRIEF,
        Recipe(20, 8, 1e-2, decay="linear"),
        Recipe(20, 8, 1e-2, smoothing=0.5),
        Recipe(20, 8, 2e-3),
        Recipe(20, 16, 1e-2),
        Recipe(5, 8, 1e-2),
        Recipe(20, 8, 1e-2, temperature=0.5),
        Recipe(20, 8, 1e-2, optimizer="adam"),
        Recipe(20, 8, 1e-2, optimizer="adam", momentum=0.9),
        Recipe(20, 8, 1e-2, optimizer="sgd"),
        Recipe(20, 8, 1e-2, optimizer="sgd", momentum=0.9),
    ]
    tasks = make_tasks("permuted")
    found = {pack(tiny, block(tiny, tasks, few_images, recipe)).tobytes() for recipe in recipes}
    assert len(found) == len(recipes)


def test_steps_done_are_told_after_each(tiny, few_images, block, make_tasks):
    told = []
    block(tiny, make_tasks("permuted"), few_images, on_step=told.append)
    assert told == list(range(1, 21))


# Trained masks


def test_masks_on_the_way_are_those_of_the_steps_so_far(tiny, few_images, block, make_tasks):
    tasks, done = make_tasks("permuted"), []
    shown = block(tiny, tasks, few_images, stages=(0, 7, 20), on_step=done.append)
    for steps in (0, 7, 20):
        masks = next(shown)
        assert len(done) == steps
        alone = block(tiny, tasks, few_images, replace(BRIEF, steps=steps))
        for mask, wanted in zip(masks, alone, strict=True):
            np.testing.assert_array_equal(mask, wanted)
    assert next(shown, None) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks_learn_the_digits(digits, dtype, block, make_tasks):
    train, test = digits
    network = mlp((64,), 10, hidden=[64])
    tasks = make_tasks("permuted", side=8, num_classes=10)
    recipe = Recipe(steps=200, batch_size=128, learning_rate=1e-3)
    before = block(network, tasks, train, Recipe(0, 128, 1e-3))
    assert max(accuracies(network, tasks, before, test)) < 0.4
    masks = block(network, tasks, train, recipe, dtype=dtype)
    assert min(accuracies(network, tasks, masks, test)) > 0.8


def test_accuracy_on_the_digits_is_that_of_the_record(six_permutations, digits):
    network, tasks, rows = six_permutations
    states = layout_of(network, METHOD).unpack(rows)
    masks = zip(*(state.planes for state in states), strict=True)
    # Rounding differs between processors and may flip a few bits. 0.015 is five test images.
    assert np.mean(accuracies(network, tasks, list(masks), digits[1])) == pytest.approx(
        0.934, abs=0.015
    )


@pytest.mark.parametrize(
    ("family", "digest"),
    [
        ("permuted", "16aade84e7a2b027"),
        ("rotated", "39e7834c49678ab7"),
        ("permuted_rotated", "55479c8f8680caae"),
        ("split", "4426c81380bb0b00"),
    ],
)
def test_masks_of_a_float64_run_are_pinned(tiny, few_images, family, digest, block, make_tasks):
    # Noise of 1e-9 in images and gradients flips no bit of these masks, so rounding cannot either.
    rows = pack(tiny, block(tiny, make_tasks(family), few_images))
    assert hashlib.sha256(rows.tobytes()).hexdigest()[:16] == digest
