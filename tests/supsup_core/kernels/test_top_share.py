import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supsup_core.kernels.patterns import BLOCK, reflect_plain
from supsup_core.kernels.top_share import TopShare, keep_largest_plain

TYPES = [
    (torch.float32, torch.float32),
    (torch.float32, torch.bfloat16),
    (torch.float64, torch.float64),
]
SMALLEST = 1e-45  # a denormal float32


def bits(tensor):
    """View a tensor as integers with the same bits, to tell -0.0 from 0.0."""
    kinds = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.view(kinds[tensor.element_size()])


def alternating(size):
    return (1 - 2 * (torch.arange(size) % 3 == 0).int()).float()


def settled(form, values, coats, narrow=torch.float32):
    """Apply a form of the kernel to `values`, the magnitudes after a step, some below zero.

    Returns:
        Magnitudes, an odd tensor of the optimiser's state, and masked signs.
    """
    signs, odd = alternating(len(values)).to(values.dtype), torch.arange(len(values)).to(values)
    masked = torch.full((len(values),), 9).to(narrow)
    magnitudes = values.clone().abs_()
    if form == "plain":
        magnitudes.copy_(values)
        reflect_plain(magnitudes, [odd])
        keep_largest_plain(magnitudes, signs, masked, coats)
    else:
        share = TopShare(magnitudes, [odd], signs * magnitudes, masked, coats)
        magnitudes.copy_(values)
        share.settle()
    return magnitudes, odd, masked


def assert_forms_agree(values, *num_kept, narrow=torch.float32):
    """Check that both forms agree on coats with these numbers of weights."""
    coats = [(num, 1.5 * (j + 1)) for j, num in enumerate(num_kept)]
    fused, plain = (settled(form, values, coats, narrow) for form in ("fused", "plain"))
    for one, same in zip(fused, plain, strict=True):
        assert torch.equal(bits(one), bits(same))
    for num, gain in coats:
        assert (fused[2].abs() >= gain).sum() == num
    return fused


@pytest.mark.parametrize("size", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7])
@pytest.mark.parametrize(("wide", "narrow"), TYPES)
def test_fused_form_equals_plain_form_for_any_number_kept(size, wide, narrow):
    values = torch.randn(size, generator=torch.Generator().manual_seed(size), dtype=wide)
    for num_kept in {1, (size + 1) // 3, size} - {0}:
        assert_forms_agree(values, num_kept, narrow=narrow)
        assert_forms_agree(values, size, num_kept, num_kept, 1, narrow=narrow)


@pytest.mark.parametrize("wide", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, SMALLEST])
def test_of_equal_magnitudes_the_first_are_kept(wide, value):
    values = torch.full((3 * BLOCK + 5,), value, dtype=wide)
    for num_kept in (1, BLOCK, BLOCK + 1, 3 * BLOCK + 4, 3 * BLOCK + 5):
        _, _, masked = assert_forms_agree(values, num_kept)
        assert (masked[:num_kept] != 0).all()


def test_ties_on_the_threshold_fill_what_larger_ones_leave():
    values = torch.tensor([1.0, -2.0, 1.0, 0.5, -1.0, 3.0])
    _, _, masked = assert_forms_agree(values, 4)
    assert (masked != 0).tolist() == [True, True, True, False, False, True]


def test_a_crossed_magnitude_turns_and_negates_the_odd_state():
    magnitudes, odd, _ = assert_forms_agree(torch.tensor([1.0, -2.0, -SMALLEST, 0.0]), 2)
    assert magnitudes.tolist() == [1, 2, torch.tensor(SMALLEST).item(), 0]
    assert odd.tolist() == [0, -1, -2, 3]


def test_denormals_are_told_apart_and_from_zero():
    values = torch.tensor([0.0, 1, 3, 2, 0, -4]) * SMALLEST
    _, _, masked = assert_forms_agree(values, 3)
    assert (masked != 0).tolist() == [False, False, True, True, False, True]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 2.0, -2.0, 2.5, SMALLEST, -SMALLEST]), min_size=1),
    st.data(),
)
def test_fused_form_equals_plain_form_whatever_ties(values, data):
    sizes = data.draw(st.lists(st.integers(1, len(values)), min_size=1, max_size=4))
    assert_forms_agree(torch.tensor(values), *sorted(sizes, reverse=True))


# The thresholds of the first two coats are so close that their ranges overlap.
MANY = [(1700, 1.0), (1690, 2.0), (300, 3.0), (300, 4.0), (2, 5.0)]


@pytest.mark.parametrize("coats", [[(1700, 1.0)], MANY], ids=len)
@pytest.mark.parametrize("change", [1e-7, 1e-3, 0.1, 100.0])
def test_the_mask_does_not_depend_on_how_far_the_threshold_moves(change, coats):
    generator = torch.Generator().manual_seed(0)
    magnitudes, signs = torch.rand(5000, generator=generator), alternating(5000)
    masked, expected = torch.empty(5000), torch.empty(5000)
    share = TopShare(magnitudes, [], signs, masked, coats)
    for i in range(12):
        step = torch.randn(5000, generator=generator) + 3 * (i % 3 - 1)  # mean -3, 0 or 3
        magnitudes.add_(change * step)
        after = magnitudes.abs()
        share.settle()
        keep_largest_plain(after, signs, expected, coats)
        assert torch.equal(magnitudes, after)
        assert torch.equal(masked, expected)


def test_many_magnitudes_near_the_threshold_are_found_exactly():
    magnitudes, signs = 1 + 1e-5 * torch.rand(5000), alternating(5000)
    masked, expected = torch.empty(5000), torch.empty(5000)
    TopShare(magnitudes, [], signs, masked, [(2500, 1.0)]).settle()
    keep_largest_plain(magnitudes, signs, expected, [(2500, 1.0)])
    assert torch.equal(masked, expected)


def test_values_that_are_not_finite_leave_the_right_number():
    magnitudes, masked = torch.tensor([float("nan"), float("inf"), 1.0, 2.0]), torch.empty(4)
    TopShare(magnitudes, [], torch.ones(4), masked, [(3, 1.0)]).settle()
    assert masked.tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize("num_kept", [0, 4])
def test_a_number_out_of_range_is_refused(num_kept):
    ones = torch.ones(3)
    with pytest.raises(ValueError, match=rf"num_kept must be in \[1, 3\], got {num_kept}"):
        TopShare(ones, [], ones, ones.clone(), [(num_kept, 1.0)])


def test_a_coat_that_keeps_more_than_the_coat_before_is_refused():
    ones = torch.ones(9)
    with pytest.raises(ValueError, match=r"num_kept must be in \[1, 3\], got 4"):
        TopShare(ones, [], ones, ones.clone(), [(3, 1.0), (4, 2.0)])


def test_scores_that_are_no_magnitudes_are_refused():
    with pytest.raises(ValueError, match=r"must be >= 0, got -2"):
        TopShare(torch.tensor([1.0, -2.0]), [], torch.ones(2), torch.ones(2), [(1, 1.0)])


def test_shapes_that_differ_are_refused_where_no_bounds_are_checked():
    whole = [torch.ones(2, 3) for _ in range(4)]
    for i in range(4):
        magnitudes, odd, signs, masked = (t[0] if i == j else t for j, t in enumerate(whole))
        with pytest.raises(ValueError, match="must have the same shape"):
            TopShare(magnitudes, [odd], signs, masked, [(2, 1.0)])
