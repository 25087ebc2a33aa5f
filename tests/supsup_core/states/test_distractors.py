import numpy as np
import pytest

from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.mlp import MLP
from supsup_core.states.distractors import Distractors

LAYOUT = layout_of(MLP("net", (67, 9, 6)), Threshold())


def counts_of(shares, num_masks):
    """Make counts in the layout of a row: share * num_masks for weights, and 0 in the padding."""
    counts = np.zeros(LAYOUT.row_bits, np.int32)
    for plane, share in zip(LAYOUT.planes, shares, strict=True):
        counts[plane.bits] = round(share * num_masks)
    return counts


def masks_of(rows):
    """Unpack rows into one array of masks (T, O, I) per layer."""
    states = LAYOUT.unpack(rows)
    return [np.stack(masks) for masks in zip(*(state.planes for state in states), strict=True)]


def drawn(counts, num_masks, num_drawn, first=0, seed=3):
    out = np.full((num_drawn, LAYOUT.row_bytes), 255, np.uint8)
    Distractors(counts, num_masks, seed).draw(first, out)
    return out


def test_weights_are_kept_as_often_as_by_the_masks():
    num_drawn = 400
    rows = drawn(counts_of([0.25, 0.7], 100), 100, num_drawn)
    for mask, share in zip(masks_of(rows), (0.25, 0.7), strict=True):
        # Five standard deviations of the layer's mean, plus the rounding error of 1/256 steps.
        tolerance = 5 * np.sqrt(share * (1 - share) / mask.size) + 1 / 512
        assert abs(mask.mean() - share) < tolerance
        of_a_weight = mask.reshape(num_drawn, -1).mean(axis=0)
        assert np.abs(of_a_weight - share).max() < 5 * np.sqrt(share * (1 - share) / num_drawn)


def test_weights_that_no_mask_keeps_and_padding_stay_empty():
    rows = drawn(counts_of([0.0, 1.0], 10), 10, 50)
    first, second = masks_of(rows)
    assert not first.any()
    assert second.mean() > 0.99  # 1 is rounded to 255/256
    assert np.bitwise_count(rows).sum() == second.sum()


def test_a_distractor_depends_on_its_number_alone():
    counts = counts_of([0.5, 0.5], 10)
    together = drawn(counts, 10, 6)
    assert np.array_equal(drawn(counts, 10, 2, first=3), together[3:5])
    assert len(np.unique(together, axis=0)) == 6
    assert not np.array_equal(drawn(counts, 10, 6, seed=4), together)


def test_densities_of_no_mask_are_refused():
    with pytest.raises(ValueError, match="num_masks must be >= 1, got 0"):
        Distractors(counts_of([0, 0], 1), 0, 0)
