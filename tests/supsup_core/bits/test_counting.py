"""Compare the counting kernels with sums of unpacked bits."""

import numpy as np
import pytest

from supsup_core.bits.counts import OnesCounter, ones_fused, ones_plain
from supsup_core.bits.threads import Threads
from supsup_core.bits.transposed import BLOCK_TASKS, TransposedMasks, UnitValues
from supsup_core.kernels.counting import MAX_DIGITS, Sums, read_sums, weigh
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.mlp import MLP
from supsup_core.states.layout import TaskState

# The widths are near 64, so that the bits of a unit start within a 64-bit word and end in the next.
NETWORK = MLP("wide", (130, 64, 12, 6))
LAYOUT = layout_of(NETWORK, Threshold())
FIRSTS = [plane.bits.start for plane in LAYOUT.planes]


def random_rows(num_tasks, seed=0, network=NETWORK):
    generator = np.random.default_rng(seed)
    masks = [generator.random((num_tasks, *tensor.shape)) < 0.5 for tensor in network.tensors]
    states = [TaskState(planes) for planes in zip(*masks, strict=True)]
    return layout_of(network, Threshold()).pack(states)


def masks_of(rows, layer, network=NETWORK):
    """Unpack the masks (T, O, I) of one layer."""
    states = layout_of(network, Threshold()).unpack(rows)
    return np.stack([state.planes[layer] for state in states])


def signs_of(network, rng):
    return rng.choice([-1.0, 1.0], network.tensors[0].shape).astype(np.float32)


def transposed(rows, rng, threads=1, network=NETWORK):
    layout = layout_of(network, Threshold())
    return TransposedMasks(layout, rows, signs_of(network, rng), Threads(threads))


def layer_values(layer, rng, num_units=5, num_inputs=11):
    num_rows, num_columns = NETWORK.tensors[layer].shape
    return UnitValues(
        rng.standard_normal((num_units, num_inputs)).astype(np.float32),
        rng.choice([-0.5, 0.5], (num_rows, num_columns)).astype(np.float32),
        rng.permutation(num_rows)[:num_units],
        rng.permutation(num_columns)[:num_inputs],
        first=FIRSTS[layer],
    )


def plain_products(rows, parts, rounded):
    """Compute <rounded(values), masks> (T,) from unpacked masks."""
    total = np.zeros(len(rows))
    for part in parts:
        masks = masks_of(rows, FIRSTS.index(part.first))
        where = part.units[:, None], part.inputs
        values = rounded(part.outer * part.weights[where])
        total += masks[:, *where].reshape(len(rows), -1) @ values.reshape(-1)
    return total


@pytest.mark.parametrize("num_tasks", [1, 63, 64, 65, 600])
def test_products_are_those_of_the_rounded_values(num_tasks, rng):
    rows = random_rows(num_tasks)
    masks = transposed(rows, rng)
    parts = [layer_values(layer, rng) for layer in range(3)]
    for inverse in (1e-3, 1.0, 1000.0):
        found = masks.weigh(parts, inverse)
        expected = plain_products(rows, parts, lambda v, i=inverse: np.rint(v * np.float64(i)) / i)
        np.testing.assert_allclose(found.products, expected, rtol=1e-12, atol=1e-12 / inverse)
        exact = plain_products(rows, parts, lambda v: v.astype(np.float64))
        off = found.products - exact
        assert np.ptp(off) <= found.slack + 1e-9
    assert found.num_rows == 3 * 55


def test_every_whole_number_becomes_digits_that_come_to_it(rng):
    """Weigh a single row by numbers up to 2**24 - 1, the largest number."""
    numbers = [0, 1, 2, 3, 5, 7, 11, 85, 170, 255, 256, 2**23 - 1, 2**23, 2**24 - 1]
    numbers += [int(2 ** rng.uniform(0, 24)) for _ in range(200)]
    rows = np.zeros((2, 8), np.uint64)
    rows[0] = 0x5555555555555555  # every other task
    for number in numbers:
        for sign in (1, -1):
            sums = Sums(8)
            one = np.ones((1, 1), np.float32)
            zero = np.zeros(1, np.int64)
            _, _, excess, _ = weigh(
                rows.reshape(-1), 8, one, one, zero, zero, 0, float(sign * number), sums.state, 0, 1
            )
            totals = np.full(512, -excess, np.int64)
            read_sums(sums.state, totals)
            assert totals[0::2].tolist() == [sign * number] * 256
            assert not totals[1::2].any()


def test_sums_of_very_many_rows_are_right(rng):
    """Sum more rows than a list holds, all with the same digits, so that the lists fill up."""
    network = MLP("long", (3000, 3, 2))
    rows = random_rows(70, network=network)
    masks = transposed(rows, rng, network=network)
    layer = UnitValues(
        np.full((3, 3000), 7.0, np.float32),
        signs_of(network, rng),
        np.arange(3),
        np.arange(3000),
        first=0,
    )
    bits = masks_of(rows, 0, network)
    expected = (bits * 7 * layer.weights).sum(axis=(1, 2))
    assert np.array_equal(masks.weigh([layer], 1.0).products, expected)


def test_sums_of_signs_are_added_unrounded(rng):
    rows, signs = random_rows(90), signs_of(NETWORK, rng)
    masks = TransposedMasks(LAYOUT, rows, signs, Threads(1))
    units, factors = np.array([3, 40, 7]), np.array([0.5, -2.0, 1e-9])
    found = masks.weigh([], 1.0, (units, factors))
    sums = (masks_of(rows, 0) * signs).sum(axis=2)
    np.testing.assert_allclose(found.products, sums[:, units] @ factors, rtol=1e-12)
    assert found.slack == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_masks_that_grow_are_as_if_made_at_once(threads, rng, monkeypatch):
    monkeypatch.setattr("supsup_core.bits.transposed.BLOCK_TASKS", 128)
    rows = random_rows(400)
    signs = signs_of(NETWORK, rng)
    grown = None
    for end in (50, 128, 300, 400):
        grown = TransposedMasks(LAYOUT, rows[:end], signs, Threads(threads), grown_from=grown)
        assert len(grown) == end
    part, terms = layer_values(0, rng), (np.arange(64), np.ones(64))
    monkeypatch.undo()
    at_once = TransposedMasks(LAYOUT, rows, signs, Threads(1))
    monkeypatch.setattr("supsup_core.bits.transposed.BLOCK_TASKS", 128)
    found, expected = (m.weigh([part], 100.0, terms) for m in (grown, at_once))
    assert np.array_equal(found.products, expected.products)
    # The size of the blocks changes neither the rounding nor the number of weights read.
    assert found.num_rows == expected.num_rows == 55
    assert (found.slack, found.variance) == pytest.approx((expected.slack, expected.variance))
    assert BLOCK_TASKS % 512 == 0


def test_memory_is_as_said(rng):
    rows = random_rows(512)
    assert transposed(rows, rng).num_bytes == rows.nbytes + 2 * 512 * 64


@pytest.mark.parametrize("num_chosen", [0, 1, 7, 8, 9, 31, 32, 100])
@pytest.mark.parametrize("threads", [1, 2])
def test_counters_count_what_the_plain_form_counts(num_chosen, threads, rng):
    rows = random_rows(100)
    chosen = rng.permutation(100)[:num_chosen]
    found = ones_fused(rows, chosen, Threads(threads))
    assert np.array_equal(found, ones_plain(rows, chosen))


def test_counter_is_kept_up_to_date_as_masks_arrive():
    rows = random_rows(77)
    counter = OnesCounter(LAYOUT.row_bytes, Threads(1))
    for start, end in ((0, 20), (20, 21), (21, 77)):
        counter.add(rows[start:end])
    assert counter.num_tasks == 77
    assert np.array_equal(counter.counts, ones_plain(rows, np.arange(77)))


def test_a_wrong_count_is_noticed(monkeypatch):
    monkeypatch.setattr(
        "supsup_core.bits.counts.ones_fused",
        lambda rows, chosen, threads: ones_plain(rows, chosen[1:]),
    )
    with pytest.raises(ArithmeticError, match="counts of ones must sum"):
        OnesCounter(LAYOUT.row_bytes, Threads(1)).add(random_rows(5))


def test_digits_have_room_for_the_largest_number():
    assert 2**MAX_DIGITS > (3 * (2**24 - 1)) >> 1
