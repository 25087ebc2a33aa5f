"""A learner on a stream: its masks, its decisions and the batches that it trains on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from supsup_core.engines.mean_slopes import BitMeanSlopes, PlainMeanSlopes, mean_slopes_for
from supsup_core.inference.allocation import FEWEST_OTHERS, MarginRule, PaperRule, Verdict
from supsup_core.inference.candidates import Candidates
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.signed import Signed
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.mlp import mlp
from supsup_core.states.shuffled import Shuffles
from supsup_core.training.autograd import AutogradTrainer
from supsup_core.training.choose import trainer_for
from supsup_core.training.learner import Learner
from supsup_core.training.measure import measure_for
from supsup_core.training.recipe import Recipe
from supsup_core.training.stream import TaskStream

NUM_TASKS = 3
RECIPE = Recipe(steps=60, batch_size=64, learning_rate=1e-3)


class Told:
    """A rule that is told the answers, in the order of the decisions."""

    references, looks_back = "untrained", False

    def __init__(self, *masks):
        self.masks = list(masks)

    def num_references(self, num_frozen, num_training):
        return 0, 0

    def __call__(self, slopes, before=None):
        return Verdict(self.masks.pop(0), 0.0, 0.0)


@pytest.fixture
def begin(digits, make_tasks):
    """A function that makes a learner on a stream of permuted digits."""

    def make(rule, *, every=20, budget=9, recipe=RECIPE, method=None, frozen=None):
        network, method = mlp((64,), 60, hidden=[64]), method or Threshold()
        tasks = make_tasks("permuted", range(NUM_TASKS), side=8, num_classes=10)
        layout, weights = layout_of(network, method), network.weights(0)
        trainer = trainer_for(network, method, *digits, recipe, seed=0)
        candidates = Candidates(
            mean_slopes_for(network, weights, layout, OBJECTIVES["H"], 10),
            rule,
            Shuffles(layout, weights, FEWEST_OTHERS, 0),
            lambda mask: layout.pack(
                next(trainer.stages([replace(tasks[0], task_id=mask)], [0]))[0]
            )[0],
            budget,
            layout.row_bytes,
        )
        if frozen is not None:
            candidates.freeze(frozen)
        stream = TaskStream(tasks.__getitem__, NUM_TASKS, digits[0], recipe, 0)
        learner = Learner(stream, trainer, candidates, rule, layout, every=every, budget=budget)
        return learner, trainer, tasks, layout

    return make


def followed(learner, first=0):
    """Follow the stream to its end; return the masks."""
    masks = [learner.follow(first)]
    while masks[-1].decisions and masks[-1].decisions[-1].allocates:
        masks.append(learner.follow(masks[-1].decisions[-1].batch))
    return masks


def chosen(masks):
    return [(one.batch, one.mask) for mask in masks for one in mask.decisions]


@pytest.mark.parametrize(
    ("rule", "method"),
    [(MarginRule(), Threshold()), (Told(0, 0, None, 1, 1, None, 2, 2), Signed())],
    ids=["bits", "plain"],
)
def test_with_right_decisions_each_mask_is_that_of_its_task_bit_for_bit(begin, rule, method):
    learner, trainer, tasks, layout = begin(rule, method=method)
    masks = followed(learner)
    assert [one.steps for one in masks] == [60, 60, 60]
    assert chosen(masks) == [(20 * i, i // 3) for i in range(9)]
    for mask, task in zip(masks, tasks, strict=True):
        ((given,),) = [states for states, _ in trainer.stages([task], [RECIPE.steps])]
        assert layout.pack([given]).tobytes() == mask.row.tobytes()


def test_a_learner_that_begins_later_makes_the_same_masks(begin):
    masks = followed(begin(MarginRule())[0])
    later, *_ = begin(MarginRule(), frozen=masks[0].row[None])
    again = followed(later, masks[0].decisions[-1].batch)
    assert [one.row.tobytes() for one in again] == [one.row.tobytes() for one in masks[1:]]
    assert [one.decisions for one in again] == [one.decisions for one in masks[1:]]


def test_a_frozen_mask_is_used_but_not_trained(begin):
    # The stream returns to mask 0 in its second task, and to mask 1 in its third task.
    learner, *_ = begin(Told(0, 0, 0, None, 0, 1, 1, 1))
    masks = followed(learner)
    assert [one.steps for one in masks] == [80, 20]
    assert chosen(masks)[-4:] == [(100, 0), (120, 1), (140, 1), (160, 1)]


@pytest.mark.parametrize("family", ["permuted", "rotated", "split"])
def test_a_mask_trains_over_a_boundary_that_no_decision_sees(family, digits, make_tasks):
    """The fast trainer permutes columns, but must show the images of the next task as they are."""
    network, method = mlp((64,), 60, hidden=[32]), Threshold()
    recipe = replace(RECIPE, steps=8, learning_rate=1e-2)
    tasks = make_tasks(family, side=8, num_classes=10)
    stream = TaskStream(tasks.__getitem__, NUM_TASKS, digits[0], recipe, 0)
    assert [stream.task_id(one) for one in (0, 7, 8, 23)] == [0, 0, 1, 2]
    layout, options = layout_of(network, method), {"seed": 0, "dtype": torch.float64}
    fast = trainer_for(network, method, *digits, recipe, **options)
    measure = measure_for(network, layout, digits[1], 0, torch.device("cpu"))
    plain = AutogradTrainer(
        *(network, method, digits[0], measure, recipe), **options, device=torch.device("cpu")
    )
    rows = []
    for trainer in (fast, plain):
        shown = trainer.stages([stream.task(0)], [8, 12], batches=stream.batches(0))
        rows.append(layout.pack([states[0] for states, _ in shown]))
    np.testing.assert_array_equal(*rows)
    assert (rows[0][0] != rows[0][1]).any()


def test_past_the_budget_batches_are_skipped_until_a_known_mask_is_found(begin):
    learner, *_ = begin(Told(0, 0, None, 1, None, None, 0, None), budget=2)
    masks = followed(learner)
    assert len(masks) == 2
    assert chosen(masks)[3:] == [(60, 1), (80, 1), (100, None), (120, None), (140, 0), (160, None)]
    assert [one.steps for one in masks] == [60, 40]
    assert not masks[1].decisions[-1].allocates


def test_a_rate_that_decays_stays_zero_after_the_recipe_s_last_step():
    recipe = replace(RECIPE, steps=4, decay="linear", learning_rate=0.8)
    assert [recipe.learning_rate_at(step) for step in (3, 4, 9)] == pytest.approx([0.2, 0, 0])
    warm = replace(recipe, warmup=4, decay="cosine")
    assert [warm.learning_rate_at(step) for step in (3, 4)] == [0.8, 0]
    assert replace(recipe, decay="none").learning_rate_at(9) == 0.8


def test_slopes_from_bits_equal_those_of_the_engine(six_permutations, digits, rng):
    network, _, rows = six_permutations
    layout, weights = layout_of(network, Threshold()), network.weights(0)
    forms = [
        BitMeanSlopes([*weights.values()], layout, OBJECTIVES["H"], 10),
        PlainMeanSlopes(network, weights, layout, OBJECTIVES["H"], 10),
    ]
    assert isinstance(
        mean_slopes_for(network, weights, layout, OBJECTIVES["H"], 10), type(forms[0])
    )
    images = torch.from_numpy(rng.normal(size=(20, 64)).astype(np.float32))
    for order, num_fixed in (([0, 1], 0), ([0, 2, 3], 1), ([0, 2, 5, 4, 1], 2), ([0, 2, 5], 3)):
        fast, plain = (form(rows[order], images, num_fixed) for form in forms)
        np.testing.assert_allclose(fast, plain, rtol=2e-4, atol=1e-6)


def test_the_paper_s_rule_gets_masks_before_their_first_step(begin):
    learner, *_ = begin(PaperRule(floor=5))
    images = learner._stream.images(0)
    training = learner.candidates._untrained(0)
    found = learner.candidates.slopes(images, training)
    assert [len(one) for one in (found.frozen, found.training, found.by_frozen)] == [0, 1, 4]
    assert len(set(found.all.tolist())) == 5
