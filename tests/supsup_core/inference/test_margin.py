"""Tests of the expected task accuracy among many masks, from the margins among few masks."""

import pytest
import torch
from scipy import stats

from supsup_core.inference.margin import expected_task_accuracy


def test_margin_is_counted_in_the_spread_of_the_others():
    # The wrong slopes have mean 2 and deviation 1. The right slopes are 2 and 5 below this mean.
    slopes = torch.tensor([[1.0, 2.0, 0.0, 3.0], [-3.0, 1.0, 2.0, 3.0]])
    expected = (stats.norm.cdf(2) ** 99 + stats.norm.cdf(5) ** 99) / 2
    assert expected_task_accuracy(slopes, torch.tensor([2, 0]), 100) == pytest.approx(expected)


def test_estimate_is_what_happens_where_slopes_are_normal():
    generator = torch.Generator().manual_seed(0)
    among, shift = 200, 3.0
    all_slopes = torch.randn(20_000, among, generator=generator, dtype=torch.float64)
    all_slopes[:, 0] -= shift
    truth = torch.zeros(len(all_slopes), dtype=torch.int64)
    happened = float((all_slopes.argmin(dim=1) == 0).double().mean())
    estimated = expected_task_accuracy(all_slopes[:, :100], truth, among)
    assert 0.4 < happened < 0.8
    assert estimated == pytest.approx(happened, abs=0.02)


def test_masks_alike_tell_nothing_apart():
    slopes = torch.zeros(2, 5)
    assert expected_task_accuracy(slopes, torch.tensor([0, 1]), 10) == 0


def test_two_masks_have_no_spread():
    with pytest.raises(ValueError, match="3 masks or more, got 2"):
        expected_task_accuracy(torch.zeros(1, 2), torch.tensor([0]), 10)


def test_the_only_mask_is_always_found():
    slopes, truth = torch.tensor([[9.0, 0.0, 0.0], [1.0, 2.0, 3.0]]), torch.tensor([0, 2])
    assert expected_task_accuracy(slopes, truth, 1) == 1
    with pytest.raises(ValueError, match="among must be >= 1, got 0"):
        expected_task_accuracy(slopes, truth, 0)
