import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supsup_core.kernels.groups import TopOfGroups
from supsup_core.kernels.patterns import BLOCK, reflect_plain
from supsup_core.methods.n_of_m import NOfM
from supsup_core.methods.planes import kept_count
from supsup_core.networks.protocol import MaskedTensor

SMALLEST = 1e-45  # a denormal float32


def assert_kernel_agrees(values, n, m, narrow=torch.float32):
    """Compare the kernel with reflect_plain and NOfM.mask, on magnitudes after a step (O, I)."""
    num_outputs, num_inputs = values.shape
    tensor = MaskedTensor("layer1", (num_outputs, num_inputs), num_inputs, "layer1")
    signs = torch.where(torch.arange(values.numel()) % 3 == 0, -1.0, 1.0).view_as(values)
    odd = torch.arange(values.numel()).to(values).view_as(values)
    magnitudes, masked = values.abs(), torch.full_like(values, 9).to(narrow)
    expected = values.clone(), odd.clone()
    last = kept_count(n / m, num_inputs % m)
    groups = TopOfGroups(magnitudes, [odd], signs, masked, n, m, last)
    magnitudes.copy_(values)
    groups.settle()
    reflect_plain(expected[0], [expected[1]])
    assert torch.equal(magnitudes, expected[0])
    assert torch.equal(odd, expected[1])
    kept = NOfM(n, m).mask(tensor, magnitudes[None])[0]
    assert torch.equal(masked, (signs * kept).to(narrow))
    return masked


@pytest.mark.parametrize(("n", "m"), [(1, 4), (2, 4), (3, 5), (1, 1), (7, 64)])
@pytest.mark.parametrize("num_inputs", [1, 3, BLOCK, 2 * BLOCK + 7])
def test_the_kernel_keeps_what_the_finder_keeps(n, m, num_inputs):
    for wide, narrow in [
        (torch.float32, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.float64, torch.float64),
    ]:
        generator = torch.Generator().manual_seed(num_inputs)
        values = torch.randn(5, num_inputs, generator=generator, dtype=wide)
        assert_kernel_agrees(values, n, m, narrow)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 2.0, -2.0, SMALLEST, -SMALLEST]), min_size=1),
    st.sampled_from([(1, 2), (2, 4), (3, 7)]),
)
def test_of_equal_magnitudes_the_first_of_a_group_are_kept(values, sizes):
    assert_kernel_agrees(torch.tensor([values, values[::-1]]), *sizes)


def test_a_crossed_magnitude_counts_as_positive():
    masked = assert_kernel_agrees(torch.tensor([[1.0, -3.0, 0.5, 2.0]]), 2, 4)
    assert np.array_equal(masked != 0, [[False, True, False, True]])


@pytest.mark.parametrize(("n", "last"), [(0, 1), (5, 1), (1, 5), (1, 0)])
def test_numbers_out_of_range_are_refused(n, last):
    ones = torch.ones(2, 8)
    with pytest.raises(ValueError, match=rf"n and last must be in \[1, m=4\], got {n} and {last}"):
        TopOfGroups(ones, [], ones, ones.clone(), n, 4, last)
