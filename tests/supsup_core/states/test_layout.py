import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.mlp import MLP, lenet_300_100
from supsup_core.networks.protocol import FloatSpec, MaskedTensor, num_gains
from supsup_core.networks.units import UnitMLP
from supsup_core.reservoirs.patterns import gains, patterns, rows_of
from supsup_core.states.density import density, uniform_tensors
from supsup_core.states.layout import PlaneSpec, StateLayout, TaskState, as_floats

KEEP, NEGATIVE, COAT = PlaneSpec(), PlaneSpec("negative", -2.0), PlaneSpec("coat")
any_widths = st.lists(st.integers(1, 40), min_size=2, max_size=5).map(tuple)
any_specs = st.sampled_from([[KEEP], [KEEP, NEGATIVE], [COAT, COAT, COAT]])
any_floats = st.lists(st.lists(st.integers(1, 4), max_size=2).map(tuple), max_size=3)
without_deadline = settings(deadline=None, max_examples=50)


def keep_layout(network):
    return layout_of(network, Threshold())


def any_layout(widths, specs, shapes=()):
    """Make a layout with the same planes for each layer, and with floats of the given shapes."""
    floats = [FloatSpec(f"float{i}", "statistic", shape) for i, shape in enumerate(shapes)]
    return StateLayout.of([(t, specs) for t in MLP("any", widths).tensors], floats)


def random_states(layout, num_tasks, seed=0):
    rng = np.random.default_rng(seed)
    return [
        TaskState(
            tuple(rng.random(plane.shape) < 0.5 for plane in layout.planes),
            {
                place.spec.name: np.array(rng.standard_normal(place.spec.shape), np.float32)
                for place in layout.floats
            },
        )
        for _ in range(num_tasks)
    ]


def stacked(states):
    """Stack the bits of several states into one array (T, ...) per plane."""
    return [np.stack(bits) for bits in zip(*(state.planes for state in states), strict=True)]


def values_of(network, states):
    """Convert states with one plane per tensor to floats: tensor name -> (T, ...) bits."""
    return {
        tensor.name: torch.from_numpy(bits).float()
        for tensor, bits in zip(network.tensors, stacked(states), strict=True)
    }


def offsets(layout):
    return tuple(plane.byte_offset for plane in layout.planes)


# Places in a row


def test_layout_of_lenet():
    layout = keep_layout(lenet_300_100((28, 28), 500))
    assert offsets(layout) == (0, 29_440, 33_216)
    assert layout.row_bytes == 39_488
    assert layout.row_bits == 8 * 39_488
    assert layout.num_bits == 315_200


@given(any_widths, any_specs, any_floats)
@without_deadline
def test_planes_are_aligned_disjoint_and_followed_by_a_guard_byte(widths, specs, shapes):
    layout = any_layout(widths, specs, shapes)
    ends = [plane.byte_offset + -(-plane.num_bits // 8) for plane in layout.planes]
    places = [*offsets(layout), *(place.byte_offset for place in layout.floats[:1])]
    assert all(place % 64 == 0 for place in (*places, layout.row_bytes))
    assert all(end <= start < end + 64 for end, start in zip(ends, places[1:], strict=False))
    end = ends[-1]
    for place in layout.floats:  # the first at a boundary, the others without gaps
        assert place.bytes.start == (end if place.byte_offset % 64 else place.byte_offset)
        assert place.bytes.stop - place.bytes.start == 4 * int(np.prod(place.spec.shape))
        end = place.bytes.stop
    assert 1 <= layout.row_bytes - end <= 64


def test_guard_byte_stays_where_the_last_layer_fills_its_line():
    assert keep_layout(MLP("full", (32, 16))).row_bytes == 128  # 512 weights are 64 bytes
    assert keep_layout(MLP("one less", (73, 7))).row_bytes == 128  # 511 weights too
    assert keep_layout(MLP("room", (63, 8))).row_bytes == 64  # 504 weights are 63 bytes


def test_guard_byte_stays_where_the_last_float_fills_its_line():
    tensor = MLP("room", (63, 8)).tensors[0]
    full, room = (
        StateLayout.of([(tensor, [KEEP])], [FloatSpec("mean", "statistic", (n,))]) for n in (16, 15)
    )
    assert (full.floats[0].byte_offset, full.row_bytes) == (64, 192)
    assert (room.floats[0].byte_offset, room.row_bytes) == (64, 128)


def test_planes_of_a_tensor_lie_behind_each_other():
    layout = any_layout((20, 30, 5), [KEEP, NEGATIVE])
    first, second = layout.tensors
    assert [(p.tensor, p.spec.role, p.byte_offset) for p in layout.planes] == [
        ("layer1", "keep", 0),
        ("layer1", "negative", 128),  # 600 bits are 75 bytes
        ("layer2", "keep", 256),
        ("layer2", "negative", 320),
    ]
    assert [p.spec for p in layout.planes if p.tensor == "layer2"] == [KEEP, NEGATIVE]
    assert layout.num_bits == 2 * (first.num_gains + second.num_gains)


def test_planes_of_only_some_tensors_are_refused():
    first, second = MLP("two", (4, 3, 2)).tensors
    with pytest.raises(ValueError, match=r"must have planes, or none, got no planes for \['layer2"):
        StateLayout.of([(first, [KEEP]), (second, [])])


def test_floats_of_one_name_are_refused():
    tensor = MLP("one", (4, 3)).tensors[0]
    twice = [FloatSpec("mean", "statistic", (3,))] * 2
    with pytest.raises(ValueError, match=r"must have different names, got \['mean', 'mean'\]"):
        StateLayout.of([(tensor, [KEEP])], twice)


# Rows


@given(any_widths, any_specs, any_floats, st.integers(1, 4), st.integers(0, 99))
@without_deadline
def test_unpack_undoes_pack(widths, specs, shapes, num_tasks, seed):
    layout = any_layout(widths, specs, shapes)
    states = random_states(layout, num_tasks, seed)
    rows = layout.pack(states)
    assert rows.shape == (num_tasks, layout.row_bytes)
    assert rows.dtype == np.uint8
    for unpacked, state in zip(layout.unpack(rows), states, strict=True):
        for back, bits in zip(unpacked.planes, state.planes, strict=True):
            assert back.dtype == np.bool_
            assert np.array_equal(back, bits)
        assert unpacked.floats.keys() == state.floats.keys()
        for name, values in state.floats.items():
            assert unpacked.floats[name].dtype == np.float32
            assert np.array_equal(unpacked.floats[name], values)


@given(any_widths, any_specs, any_floats, st.integers(1, 4))
@without_deadline
def test_bits_between_planes_and_floats_are_zero(widths, specs, shapes, num_tasks):
    layout = any_layout(widths, specs, shapes)
    ones = TaskState(
        tuple(np.ones(plane.shape, bool) for plane in layout.planes),
        {p.spec.name: np.zeros(p.spec.shape, np.float32) for p in layout.floats},
    )
    rows = layout.pack([ones] * num_tasks)
    assert (np.bitwise_count(rows).sum(axis=1) == layout.num_bits).all()
    assert (rows[:, -1] == 0).all()
    if layout.floats:
        assert (rows[:, layout.floats[0].byte_offset :] == 0).all()


def test_bits_are_little_endian_and_weights_in_c_order():
    layout = keep_layout(MLP("hand", (5, 2, 1)))
    first = np.array([[1, 0, 0, 0, 0], [0, 1, 0, 1, 1]], dtype=bool)
    second = np.array([[0, 1]], dtype=bool)
    expected = np.zeros((1, 128), dtype=np.uint8)
    expected[0, 0] = 2**0 + 2**6  # weights 0 and 6
    expected[0, 1] = 2**0 + 2**1  # weights 8 and 9
    expected[0, 64] = 2**1
    assert np.array_equal(layout.pack([TaskState((first, second))]), expected)


def test_floats_are_little_endian_behind_the_planes():
    tensor = MLP("hand", (5, 2)).tensors[0]
    specs = [FloatSpec("one", "scale", (), tensor="layer1"), FloatSpec("two", "statistic", (2,))]
    layout = StateLayout.of([(tensor, [KEEP])], specs)
    floats = {"one": np.array(1.5, np.float32), "two": np.array([-2.0, 0.1], np.float32)}
    row = layout.pack([TaskState((np.zeros((2, 5), bool),), floats)])[0]
    assert row[:64].tolist() == [0] * 64
    assert row[64:76].tobytes() == np.array([1.5, -2.0, 0.1], "<f4").tobytes()
    assert layout.scales == {"layer1": layout.floats[0]}
    read = layout.read_floats(row[None])
    assert (read["one"].shape, read["two"].shape) == ((1,), (1, 2))


def test_flatten_lays_values_where_their_bits_lie(tiny):
    layout = keep_layout(tiny)
    states = random_states(layout, 3)
    flat = layout.flatten(values_of(tiny, states))
    assert torch.equal(flat, as_floats(layout.pack(states), torch.device("cpu")))


def test_flatten_gives_every_plane_the_values_times_its_coefficient():
    layout = any_layout((3, 2), [KEEP, NEGATIVE])
    values = torch.arange(6.0).reshape(1, 2, 3) + 1
    flat = layout.flatten({"layer1": values})
    expected = torch.zeros(1, layout.row_bits)
    expected[0, :6], expected[0, 512:518] = values.flatten(), -2 * values.flatten()
    assert torch.equal(flat, expected)


def test_unflatten_undoes_flatten(tiny, rng):
    layout = keep_layout(tiny)
    values = {
        tensor.name: torch.from_numpy(rng.standard_normal((2, *tensor.shape)).astype(np.float32))
        for tensor in tiny.tensors
    }
    back = layout.unflatten(layout.flatten(values))
    assert back.keys() == values.keys()
    assert all(torch.equal(back[name], values[name]) for name in values)


def test_unflatten_adds_planes_up_by_their_coefficients(rng):
    for specs, possible in [([KEEP, NEGATIVE], {-1, 0, 1}), ([COAT] * 3, {0, 1, 2, 3})]:
        layout = any_layout((20, 3), specs)
        one, two, *rest = nested_planes(layout, rng)
        flat = as_floats(layout.pack([TaskState((one, two, *rest))]), torch.device("cpu"))
        expected = sum(
            spec.coefficient * bits for spec, bits in zip(specs, (one, two, *rest), strict=True)
        )
        found = layout.unflatten(flat)["layer1"][0]
        assert np.array_equal(found, expected)
        assert set(found.unique().tolist()) == possible


def nested_planes(layout, rng):
    """Draw planes of one tensor. Each plane is a subset of the plane before."""
    planes = [rng.random(layout.planes[0].shape) < 0.8]
    for plane in layout.planes[1:]:
        planes.append(planes[-1] & (rng.random(plane.shape) < 0.6))
    return planes


def test_unflatten_gives_views(tiny):
    layout = keep_layout(tiny)
    flat = torch.zeros(2, layout.row_bits)
    layout.unflatten(flat)["layer2"][1, 0, 0] = 7
    assert flat[1, 8 * layout.planes[1].byte_offset] == 7


def test_density_counts_weights_and_no_padding(tiny):
    layout = keep_layout(tiny)
    states = random_states(layout, 3)
    for full, empty in zip(states[0].planes, states[1].planes, strict=True):
        full[:], empty[:] = True, False
    expected = sum(bits.sum() for bits in states[2].planes) / num_gains(tiny)
    assert density(layout, layout.pack(states)).tolist() == [1.0, 0.0, expected]


def test_tensors_that_keep_nothing_or_everything_are_found(tiny):
    layout = keep_layout(tiny)
    states = random_states(layout, 3)
    states[1].planes[0][:] = False
    states[1].planes[1][:] = True
    states[2].planes[1][:] = False
    found = uniform_tensors(layout, layout.pack(states))
    assert found == [(1, "layer1", False), (1, "layer2", True), (2, "layer2", False)]


@pytest.mark.parametrize("specs", [[KEEP, NEGATIVE], [COAT] * 3], ids=["signed", "coats"])
def test_density_counts_the_first_plane_of_each_tensor(specs):
    layout = any_layout((20, 30, 5), specs, [(3,)])
    states = random_states(layout, 4)
    first = [p for p in range(len(layout.planes)) if p % len(specs) == 0]
    expected = [sum(state.planes[p].sum() for p in first) / 750 for state in states]
    assert density(layout, layout.pack(states)).tolist() == expected


def test_mask_of_another_shape_is_refused(tiny):
    first, second, third = random_states(keep_layout(tiny), 1)[0].planes
    with pytest.raises(ValueError, match=r"keep of layer2 must have shape .* \(8, 12\)"):
        keep_layout(tiny).pack([TaskState((first, second.T, third))])


def test_a_state_of_another_number_of_planes_is_refused(tiny):
    (state,) = random_states(keep_layout(tiny), 1)
    message = r"must have 3 planes and the floats \[\], got 2 planes and the floats \[\]"
    with pytest.raises(ValueError, match=message):
        keep_layout(tiny).pack([TaskState(state.planes[:2])])


def test_floats_that_are_missing_or_of_another_shape_are_refused():
    layout = any_layout((4, 3), [KEEP, NEGATIVE], [(2,)])
    (state,) = random_states(layout, 1)
    with pytest.raises(ValueError, match=r"floats \['float0'\], got 2 planes and the floats \[\]"):
        layout.pack([TaskState(state.planes)])
    with pytest.raises(ValueError, match=r"float0 must have shape .* \(2,\), got \(3,\)"):
        layout.pack([TaskState(state.planes, {"float0": np.zeros(3, np.float32)})])


def test_rows_of_another_length_are_refused(tiny):
    layout = keep_layout(tiny)
    with pytest.raises(ValueError, match="rows must have shape"):
        layout.unpack(np.zeros((2, layout.row_bytes - 1), dtype=np.uint8))


# Masks over units


@pytest.fixture
def units():
    return keep_layout(UnitMLP("units", (20, 70, 9, 6)))


def test_units_have_a_bit_each_and_outputs_none(units):
    assert [plane.shape for plane in units.planes] == [(70,), (9,)]
    assert units.num_bits == 79
    assert (offsets(units), units.row_bytes) == ((0, 64), 128)


def test_packed_units_come_back_and_are_dense_as_their_bits(units):
    states = random_states(units, 4)
    rows = units.pack(states)
    for mask, back in zip(stacked(states), stacked(units.unpack(rows)), strict=True):
        assert np.array_equal(mask, back)
    ones = sum(mask.sum(axis=1) for mask in stacked(states))
    assert np.allclose(density(units, rows), ones / 79)


@pytest.mark.parametrize("network", [UnitMLP("units", (20, 70, 9, 6)), MLP("mlp", (7, 9, 6))])
def test_patterns_are_masks_without_gaps_and_go_back_into_rows(network):
    layout = keep_layout(network)
    states = random_states(layout, 4)
    rows, masks = layout.pack(states), stacked(states)
    found = patterns(layout, rows)
    flat = np.concatenate([mask.reshape(4, -1) for mask in masks], axis=1)
    assert np.array_equal(found.numpy(), 2.0 * flat - 1)
    assert np.array_equal(rows_of(layout, found), rows)
    for (name, gain), tensor, mask in zip(
        gains(layout, found).items(), network.tensors, masks, strict=True
    ):
        assert name == tensor.name
        assert np.array_equal(gain.numpy(), mask)


def test_number_of_gains_is_that_of_the_elements():
    assert MaskedTensor("kernel", (8, 3, 5, 5), fan_in=75, source="kernel").num_gains == 600
