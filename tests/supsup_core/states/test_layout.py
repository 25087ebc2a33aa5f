import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supsup_core.networks.mlp import Network, make_network
from supsup_core.reservoirs.patterns import gains, patterns, rows_of
from supsup_core.states.layout import MaskLayout, as_floats, density

any_widths = st.lists(st.integers(1, 40), min_size=2, max_size=5).map(tuple)
without_deadline = settings(deadline=None, max_examples=50)


def random_masks(network, num_tasks, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.random((num_tasks, *layer.shape)) < 0.5 for layer in network.layers]


def test_layout_of_lenet():
    layout = MaskLayout.of(make_network("lenet_300_100", 784, 500))
    assert layout.byte_offsets == (0, 29_440, 33_216)
    assert layout.row_bytes == 39_488
    assert layout.row_bits == 8 * 39_488


@given(any_widths)
@without_deadline
def test_layers_are_aligned_disjoint_and_followed_by_a_guard_byte(widths):
    layout = MaskLayout.of(Network("any", widths))
    ends = [
        offset + -(-layer.num_weights // 8)
        for layer, offset in zip(layout.layers, layout.byte_offsets, strict=True)
    ]
    assert all(place % 64 == 0 for place in (*layout.byte_offsets, layout.row_bytes))
    assert all(end <= start for end, start in zip(ends, layout.byte_offsets[1:], strict=False))
    assert 1 <= layout.row_bytes - ends[-1] <= 64


def test_guard_byte_stays_where_the_last_layer_fills_its_line():
    assert MaskLayout.of(Network("full", (32, 16))).row_bytes == 128  # 512 weights are 64 bytes
    assert MaskLayout.of(Network("one less", (73, 7))).row_bytes == 128  # 511 as well
    assert MaskLayout.of(Network("room", (63, 8))).row_bytes == 64  # 504 are 63


@given(any_widths, st.integers(1, 4), st.integers(0, 99))
@without_deadline
def test_unpack_undoes_pack(widths, num_tasks, seed):
    network = Network("any", widths)
    layout, masks = MaskLayout.of(network), random_masks(network, num_tasks, seed)
    rows = layout.pack(masks)
    assert rows.shape == (num_tasks, layout.row_bytes)
    assert rows.dtype == np.uint8
    for unpacked, mask in zip(layout.unpack(rows), masks, strict=True):
        assert unpacked.dtype == np.bool_
        assert np.array_equal(unpacked, mask)


@given(any_widths, st.integers(1, 4))
@without_deadline
def test_bits_between_layers_are_zero(widths, num_tasks):
    network = Network("any", widths)
    masks = [np.ones((num_tasks, *layer.shape), dtype=bool) for layer in network.layers]
    rows = MaskLayout.of(network).pack(masks)
    assert (np.bitwise_count(rows).sum(axis=1) == network.num_weights).all()
    assert (rows[:, -1] == 0).all()


def test_bits_are_little_endian_and_weights_in_c_order():
    layout = MaskLayout.of(Network("hand", (5, 2, 1)))
    first = np.array([[[1, 0, 0, 0, 0], [0, 1, 0, 1, 1]]], dtype=bool)
    second = np.array([[[0, 1]]], dtype=bool)
    expected = np.zeros((1, 128), dtype=np.uint8)
    expected[0, 0] = 2**0 + 2**6  # weights 0 and 6
    expected[0, 1] = 2**0 + 2**1  # weights 8 and 9
    expected[0, 64] = 2**1
    assert np.array_equal(layout.pack([first, second]), expected)


def test_flatten_lays_values_where_their_bits_lie(tiny):
    layout, masks = MaskLayout.of(tiny), random_masks(tiny, 3)
    flat = layout.flatten([torch.from_numpy(mask).float() for mask in masks])
    assert torch.equal(flat, as_floats(layout.pack(masks), torch.device("cpu")))


def test_unflatten_undoes_flatten(tiny, rng):
    layout = MaskLayout.of(tiny)
    values = [
        torch.from_numpy(rng.standard_normal((2, *layer.shape)).astype(np.float32))
        for layer in tiny.layers
    ]
    for back, value in zip(layout.unflatten(layout.flatten(values)), values, strict=True):
        assert torch.equal(back, value)


def test_unflatten_gives_views(tiny):
    layout = MaskLayout.of(tiny)
    flat = torch.zeros(2, layout.row_bits)
    layout.unflatten(flat)[1][1, 0, 0] = 7
    assert flat[1, 8 * layout.byte_offsets[1]] == 7


def test_density_counts_weights_and_no_padding(tiny):
    layout = MaskLayout.of(tiny)
    masks = random_masks(tiny, 3)
    for mask in masks:
        mask[0], mask[1] = True, False
    expected = sum(mask[2].sum() for mask in masks) / tiny.num_weights
    assert density(layout, layout.pack(masks)).tolist() == [1.0, 0.0, expected]


def test_mask_of_another_shape_is_refused(tiny):
    masks = random_masks(tiny, 2)
    masks[1] = masks[1].transpose(0, 2, 1)
    with pytest.raises(ValueError, match=r"mask of layer2 must have shape .* \(2, 8, 12\)"):
        MaskLayout.of(tiny).pack(masks)


def test_masks_of_different_numbers_of_tasks_are_refused(tiny):
    masks = random_masks(tiny, 2)
    masks[2] = masks[2][:1]
    with pytest.raises(ValueError, match="mask of layer3"):
        MaskLayout.of(tiny).pack(masks)


def test_rows_of_another_length_are_refused(tiny):
    layout = MaskLayout.of(tiny)
    with pytest.raises(ValueError, match="rows must have shape"):
        layout.unpack(np.zeros((2, layout.row_bytes - 1), dtype=np.uint8))


# Masks over units


def test_units_have_a_bit_each_and_outputs_none():
    layout = MaskLayout.of_units(Network("units", (20, 70, 9, 6)))
    assert layout.mask_shapes == ((70, 1), (9, 1), (6, 0))
    assert layout.num_bits == 79
    assert (layout.byte_offsets, layout.row_bytes) == ((0, 64, 128), 192)


def test_packed_units_come_back_and_are_dense_as_their_bits(rng):
    layout = MaskLayout.of_units(Network("units", (20, 70, 9, 6)))
    masks = [rng.random((4, *shape)) < 0.3 for shape in layout.mask_shapes]
    rows = layout.pack(masks)
    for mask, back in zip(masks, layout.unpack(rows), strict=True):
        assert np.array_equal(mask, back)
    ones = sum(mask.sum(axis=(1, 2)) for mask in masks)
    assert np.allclose(density(layout, rows), ones / 79)


def test_patterns_are_masks_without_gaps_and_go_back_into_rows(rng):
    layout = MaskLayout.of_units(Network("units", (20, 70, 9, 6)))
    masks = [rng.random((4, *shape)) < 0.3 for shape in layout.mask_shapes]
    rows = layout.pack(masks)
    states = patterns(layout, rows)
    flat = np.concatenate([mask.reshape(4, -1) for mask in masks], axis=1)
    assert np.array_equal(states.numpy(), 2.0 * flat - 1)
    assert np.array_equal(rows_of(layout, states), rows)
    for gain, mask in zip(gains(layout, states), masks, strict=True):
        assert np.array_equal(gain.numpy(), mask)
