"""The rules of allocation, with values computed by hand."""

from math import inf, log

import pytest
import torch

from supsup_core.inference.allocation import (
    FEWEST_OTHERS,
    CandidateSlopes,
    MarginRule,
    PaperRule,
    margin,
)


def slopes(frozen=(), training=(), by_frozen=(), by_training=()):
    return CandidateSlopes(
        *map(torch.tensor, map(list, (frozen, training, by_frozen, by_training)))
    )


def test_the_margin_by_hand():
    # The mean of the others is 3 and their variance (1 + 0 + 1) / 2 is 1.
    assert margin(torch.tensor(-1.0), torch.tensor([2.0, 3.0, 4.0])) == 4.0
    assert margin(torch.tensor(1.0), torch.tensor([2.0, 2.0])) == inf
    assert margin(torch.tensor(2.0), torch.tensor([2.0, 2.0])) == 0.0
    with pytest.raises(ValueError, match="others must have 2 slopes or more, got 1"):
        margin(torch.tensor(0.0), torch.tensor([1.0]))


def test_the_paper_s_rule_by_hand():
    # nu = softmax(-slopes) = (3/5, 1/5, 1/5), so the score is 3 * 3/5.
    known = PaperRule()(slopes([-log(3.0), 0.0], [0.0]))
    assert known.mask == 0
    assert known.score == pytest.approx(1.8)
    assert known.threshold == 1.125
    # nu = (9/25, 8/25, 8/25): the score 1.08 is below the threshold.
    unknown = PaperRule()(slopes([0.0, 0.0], [-log(9 / 8)]))
    assert unknown.mask is None
    assert unknown.score == pytest.approx(1.08)
    assert PaperRule(epsilon=0.05)(slopes([0.0, 0.0], [-log(9 / 8)])).mask == 2


def test_the_paper_s_rule_allocates_if_an_untrained_mask_wins():
    rule = PaperRule(floor=4)
    assert rule.num_references(1, 1) == (2, 0)
    assert rule.num_references(4, 1) == (0, 0)
    won = rule(slopes([0.0], [0.0], by_frozen=[-9.0, 0.0]))
    assert won.score > won.threshold
    assert won.mask is None


def test_with_one_candidate_the_paper_s_rule_always_allocates():
    assert PaperRule().num_references(0, 1) == (0, 0)
    assert PaperRule()(slopes(training=[-100.0])) == PaperRule()(slopes(training=[5.0]))
    assert PaperRule()(slopes(training=[-100.0])).mask is None


def test_the_margin_rule_compares_frozen_masks_with_the_other_frozen_masks():
    rule = MarginRule(threshold=4.0)
    found = rule(slopes([2.0, -1.0, 3.0], by_frozen=[4.0]))
    assert (found.mask, found.score) == (1, 4.0)
    # The mask in training has a slope that only its own references may judge.
    found = rule(slopes([2.0, -1.0, 3.0], [100.0], [4.0], [101.0, 102.0, 103.0]))
    assert (found.mask, found.score) == (1, 4.0)
    assert MarginRule(threshold=4.1)(slopes([2.0, -1.0, 3.0], by_frozen=[4.0])).mask is None


def test_the_margin_rule_compares_the_mask_in_training_with_its_own_copies():
    rule = MarginRule(threshold=5.0)
    found = rule(slopes([0.0, 1.0], [10.0], [2.0], [15.0, 16.0, 17.0]))
    assert (found.mask, found.score) == (2, 6.0)
    alone = rule(slopes(training=[10.0], by_training=[15.0, 16.0, 17.0]))
    assert (alone.mask, alone.score) == (0, 6.0)


def test_the_mask_in_training_must_keep_half_of_its_margin():
    rule = MarginRule(threshold=5.0)
    before = slopes([0.0, 1.0], [-4.0], [2.0], [15.0, 16.0, 17.0])  # a margin of 20
    left = rule(slopes([0.0, 1.0], [7.0], [2.0], [15.0, 16.0, 17.0]), before)
    assert (left.mask, left.score, left.threshold) == (None, 9.0, 10.0)
    stays = rule(slopes([0.0, 1.0], [6.0], [2.0], [15.0, 16.0, 17.0]), before)
    assert (stays.mask, stays.score, stays.threshold) == (2, 10.0, 10.0)
    # A frozen mask with a margin of 8 is known, although the margin 9 of the mask in training is
    # larger.
    frozen = rule(slopes([-5.0, 2.0, 4.0], [7.0], [3.0], [15.0, 16.0, 17.0]), before)
    assert (frozen.mask, frozen.score, frozen.threshold) == (0, 8.0, 5.0)


@pytest.mark.parametrize("num_frozen", [0, 1, 2, 5, FEWEST_OTHERS + 1, 100])
def test_the_margin_rule_always_has_enough_others(num_frozen):
    for_frozen, for_training = MarginRule().num_references(num_frozen, 1)
    assert for_training == FEWEST_OTHERS
    if num_frozen:
        assert num_frozen - 1 + for_frozen == max(num_frozen - 1, FEWEST_OTHERS)
    assert MarginRule().num_references(num_frozen, 0) == (for_frozen, 0)


def test_slopes_that_are_not_finite_are_refused():
    with pytest.raises(FloatingPointError, match="with 2 candidates"):
        slopes([1.0], [float("nan")])
