from dataclasses import replace

import numpy as np
import pytest
import torch

from supsup_core.bits.counts import ones_plain
from supsup_core.bits.evidence import Size
from supsup_core.bits.infer import BIT_ALGORITHMS, BitInference
from supsup_core.bits.ranked import RankedScan
from supsup_core.bits.scan import laid_out, scale_for
from supsup_core.inference.algorithms import Options, binary, one_shot
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.inference.slopes import MLPSlopes
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.mlp import MLP
from supsup_core.states.bits import BitStates
from supsup_core.states.layout import TaskState

CPU = torch.device("cpu")
NUM_REAL = 4
# The widths are near 64, so that the bits of a unit start within a 64-bit word and end in the next.
NETWORKS = [MLP("odd", (67, 9, 6)), MLP("wide", (130, 64, 12, 6)), MLP("one", (16, 6))]
ODD, WIDE, _ = NETWORKS


def named(network):
    return network.name


def layout_for(network):
    return layout_of(network, Threshold())


def weights_of(network):
    return list(network.weights(0).values())


def pack(network, masks):
    """Pack masks, given as one array (T, O, I) per layer, into rows."""
    return layout_for(network).pack([TaskState(planes) for planes in zip(*masks, strict=True)])


def random_rows(network, num_tasks, seed=0, density=0.5):
    generator = np.random.default_rng(seed)
    masks = [generator.random((num_tasks, *tensor.shape)) < density for tensor in network.tensors]
    return pack(network, masks)


def random_images(network, num_queries, num_images=1, seed=0, black=0.6):
    """Draw random images in which most pixels have the same black, as in drawings."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_queries, num_images, network.widths[0])
    images = torch.randn(shape, generator=generator)
    images[torch.rand(shape, generator=generator) < black] = -3.5
    return images


def bits_of(network, rows, **more):
    return BitInference(weights_of(network), layout_for(network), rows, NUM_REAL, **more)


def whole_values(layer):
    """Compute the evidence (O, I) of all weights of a layer."""
    return layer.outer(np.arange(len(layer.weights))) * layer.weights


def plain_of(network, rows, images, objective):
    states = BitStates(layout_for(network), rows, CPU)
    return MLPSlopes(network, network.weights(0), states, images, objective, NUM_REAL)


# The algorithms against their plain forms


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize("num_images", [1, 3])
@pytest.mark.parametrize("network", NETWORKS, ids=named)
def test_one_shot_names_what_the_plain_form_names(network, num_images, objective):
    rows, images = random_rows(network, 137), random_images(network, 20, num_images)
    found = bits_of(network, rows).one_shot(images, objective)
    expected = one_shot(plain_of(network, rows, images, objective))
    assert found.tasks.tolist() == expected.tasks.tolist()
    assert found.num_gradients == 1
    assert 0 < found.bits_read_fraction <= 1
    assert len(set(found.tasks.tolist())) > 1


@pytest.mark.parametrize("few", [0, 20, 512])
@pytest.mark.parametrize("log_base", [2, 3, 1000])
@pytest.mark.parametrize("num_tasks", [1, 2, 3, 37, 90])
@pytest.mark.parametrize("network", NETWORKS[:2], ids=named)
def test_binary_halves_as_the_plain_form_does(network, num_tasks, log_base, few, monkeypatch):
    monkeypatch.setattr("supsup_core.bits.scan._FEW", few)
    rows, images = random_rows(network, num_tasks), random_images(network, 5)
    found = bits_of(network, rows).binary(images, OBJECTIVES["H"], log_base)
    expected = binary(plain_of(network, rows, images, OBJECTIVES["H"]), log_base)
    assert found.tasks.tolist() == expected.tasks.tolist()
    assert found.num_gradients == expected.num_gradients


def with_wanted_masks(network, rows, images, objective, first):
    """Replace some tasks' masks with the masks of the lowest possible product, one per query."""
    bits = bits_of(network, rows)
    for task, evidence in enumerate(bits.evidence(images, objective), start=first):
        values = [whole_values(layer) for layer in evidence.layers]
        rows[task] = pack(network, [v[None] < 0 for v in values])[0]


@pytest.mark.parametrize("num_images", [1, 3])
def test_ranked_agrees_with_exact_where_the_evidence_is_clear(num_images):
    network, objective = MLP("clear", (200, 60, 6)), OBJECTIVES["H"]
    rows, images = random_rows(network, 300), random_images(network, 6, num_images)
    with_wanted_masks(network, rows, images, objective, first=40)
    bits = bits_of(network, rows)
    found = bits.one_shot_ranked(images, objective)
    exact = bits.one_shot(images, objective)
    assert found.tasks.tolist() == exact.tasks.tolist() == [40, 41, 42, 43, 44, 45]
    assert found.bits_read_fraction < 0.8 * exact.bits_read_fraction


def test_ranked_is_exact_where_nothing_may_be_dropped():
    """With very high confidence, the ranked scan decides every task from all evidence."""
    rows, images = random_rows(WIDE, 100), random_images(WIDE, 20)
    bits = bits_of(WIDE, rows)
    scan = RankedScan(bits._scan, confidence=1e9)
    found = [scan.smallest(e) for e in bits.evidence(images, OBJECTIVES["G"])]
    exact = bits.leaders(bits.evidence(images, OBJECTIVES["G"]))
    assert found == exact  # including the number of bits read


@pytest.mark.parametrize("deciding", [1, 1000])
def test_ranked_decides_what_is_left_by_all_evidence(deciding, monkeypatch):
    """Test both ways to decide the remaining tasks: one by one, and by an exact scan."""
    monkeypatch.setattr("supsup_core.bits.ranked._DECIDING", deciding)
    rows, images = random_rows(WIDE, 100), random_images(WIDE, 20)
    bits = bits_of(WIDE, rows)
    scan = RankedScan(bits._scan, confidence=10.0)
    found = [scan.smallest(e).task for e in bits.evidence(images, OBJECTIVES["H"])]
    assert found == bits.one_shot(images, OBJECTIVES["H"]).tasks.tolist()


@pytest.mark.parametrize("num_queries", [1, 4])  # threads share one query, or take whole queries
@pytest.mark.parametrize("name", BIT_ALGORITHMS)
def test_threads_change_nothing(name, num_queries, monkeypatch):
    monkeypatch.setattr("supsup_core.bits.transposed._WORDS_WORTH_A_THREAD", 0)
    rows, images = random_rows(WIDE, 150), random_images(WIDE, num_queries)
    one, two = (bits_of(WIDE, rows, threads=n) for n in (1, 2))
    found = [BIT_ALGORITHMS[name](bits, images, OBJECTIVES["G"], Options()) for bits in (one, two)]
    assert found[0].tasks.tolist() == found[1].tasks.tolist()
    assert found[0].bits_read_fraction == found[1].bits_read_fraction


@pytest.mark.parametrize("name", BIT_ALGORITHMS)
def test_masks_that_arrive_later_count_as_if_they_had_been_there(name):
    rows, images = random_rows(WIDE, 150), random_images(WIDE, 6)
    grown = bits_of(WIDE, rows[:70])
    grown.grow(rows[:71])
    grown.grow(rows)
    assert len(grown) == 150
    found = [
        BIT_ALGORITHMS[name](b, images, OBJECTIVES["H"], Options())
        for b in (grown, bits_of(WIDE, rows))
    ]
    assert found[0].tasks.tolist() == found[1].tasks.tolist()
    with pytest.raises(ValueError, match="at least the 150 earlier masks, got 149"):
        grown.grow(rows[:149])


def test_superposition_is_the_share_of_masks_that_keep_a_weight():
    rows = random_rows(ODD, 33)
    effective = bits_of(ODD, rows)._all_together
    shares = torch.from_numpy(ones_plain(rows, np.arange(33)) / 33).float()
    layers = layout_for(ODD).unflatten(shares[None]).values()
    for found, weight, share in zip(effective, weights_of(ODD), layers, strict=True):
        torch.testing.assert_close(found, weight * share[0])


# Exactness


@pytest.mark.parametrize("num_images", [1, 3])
def test_scans_find_the_smallest_product_of_float64(num_images):
    """Include masks that differ in one bit, which rounded products alone cannot separate."""
    rows, images = random_rows(WIDE, 60), random_images(WIDE, 10, num_images)
    rows[1:30] = rows[0]
    for task in range(1, 30):
        rows[task, 3 * task] ^= 1  # one bit differs
    bits = bits_of(WIDE, rows)
    states = layout_for(WIDE).unpack(rows)
    masks = [np.stack(masks) for masks in zip(*(state.planes for state in states), strict=True)]
    for evidence in bits.evidence(images, OBJECTIVES["H"]):
        exact = np.zeros(60)
        for layer, mask in zip(evidence.layers, masks, strict=True):
            values = whole_values(layer).astype(np.float64)
            exact += (mask * values).sum(axis=(1, 2))
        found = bits._scan.exact(evidence, np.arange(60))
        np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-12)
        first, second = np.argsort(found, kind="stable")[:2]
        smallest = bits._scan.smallest(evidence)
        assert (smallest.task, smallest.runner_up) == (first, second)
        assert smallest.margin == found[second] - found[first]
        assert bits._scan.smallest_of(evidence, np.arange(60)) == replace(
            smallest, bits_read_fraction=1.0
        )
        half = np.sort(np.argsort(found, kind="stable")[:30])
        assert bits._scan.smaller_part(evidence, np.arange(60), 30).tolist() == half.tolist()
        weighed = bits._scan._weigh(evidence, 0.5)
        assert np.ptp(weighed.products - exact) <= weighed.slack


@pytest.mark.parametrize("num_images", [1, 3])
def test_sizes_from_factors_are_those_of_the_values(num_images):
    rows, images = random_rows(WIDE, 20), random_images(WIDE, 3, num_images)
    for evidence in bits_of(WIDE, rows).evidence(images, OBJECTIVES["H"]):
        for layer in evidence.layers:
            live = layer.live()
            values = layer.values(live)
            weights = values.weights[values.units[:, None], values.inputs]
            expected, found = Size.of(values.outer * weights), layer.size(values)
            assert found.count == expected.count
            for name in ("absolute", "squares", "largest"):
                assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-5)
            whole = whole_values(layer)
            np.testing.assert_allclose(layer.energies(), (whole**2).sum(axis=1), rtol=1e-4)


def test_scale_keeps_numbers_small_and_takes_no_evidence():
    assert scale_for(Size(0, 0.0, 0.0, 0.0), 1.0) == 1
    assert scale_for(Size(10**9, 1.0, 1e-12, 1e-3), 1e-3) * 1e-3 < 2**24


# The edges


@pytest.mark.parametrize("name", BIT_ALGORITHMS)
@pytest.mark.parametrize("num_tasks", [1, 2])
def test_one_and_two_masks_are_enough(name, num_tasks):
    rows, images = random_rows(ODD, num_tasks), random_images(ODD, 9)
    found = BIT_ALGORITHMS[name](bits_of(ODD, rows), images, OBJECTIVES["H"], Options())
    expected = one_shot(plain_of(ODD, rows, images, OBJECTIVES["H"]))
    assert found.tasks.tolist() == expected.tasks.tolist()


@pytest.mark.parametrize("name", BIT_ALGORITHMS)
@pytest.mark.parametrize("kind", ["empty", "full", "random"])
def test_identical_masks_leave_the_lowest_task(name, kind):
    if kind == "random":
        rows = np.repeat(random_rows(ODD, 1), 70, axis=0)
    else:
        rows = pack(ODD, [np.full((70, *t.shape), kind == "full") for t in ODD.tensors])
    found = BIT_ALGORITHMS[name](
        bits_of(ODD, rows), random_images(ODD, 9), OBJECTIVES["H"], Options()
    )
    assert found.tasks.tolist() == [0] * 9


@pytest.mark.parametrize("name", BIT_ALGORITHMS)
def test_an_empty_and_a_full_mask_are_masks_like_others(name):
    rows = random_rows(ODD, 40)
    rows[[7, 8]] = pack(
        ODD, [np.stack([np.zeros(t.shape, bool), np.ones(t.shape, bool)]) for t in ODD.tensors]
    )
    images, objective = random_images(ODD, 40), OBJECTIVES["H"]
    found = BIT_ALGORITHMS[name](bits_of(ODD, rows), images, objective, Options())
    plain = {"binary": binary}.get(name, one_shot)(plain_of(ODD, rows, images, objective))
    num_wrong = int((found.tasks != plain.tasks).sum())
    assert num_wrong <= (4 if name == "one_shot_ranked" else 0)


@pytest.mark.parametrize("name", BIT_ALGORITHMS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_images_that_are_not_finite_are_refused(name, bad):
    images = random_images(ODD, 9)
    images[-1, 0, 3] = bad
    with pytest.raises(FloatingPointError, match="evidence must be finite"):
        BIT_ALGORITHMS[name](bits_of(ODD, random_rows(ODD, 6)), images, OBJECTIVES["H"], Options())


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e10, 1e18])
@pytest.mark.parametrize("name", ["one_shot", "one_shot_ranked"])
def test_images_may_be_of_any_size(name, size):
    """Squares of evidence may round to 0, or be too large for float32."""
    rows, images = random_rows(ODD, 30), size * random_images(ODD, 5, black=0)
    bits = bits_of(ODD, rows)
    found = BIT_ALGORITHMS[name](bits, images, OBJECTIVES["H"], Options())
    for task, evidence in zip(found.tasks, bits.evidence(images, OBJECTIVES["H"]), strict=True):
        products = bits._scan.exact(evidence, np.arange(30))
        assert products[task] == products.min()


@pytest.mark.parametrize("network", NETWORKS, ids=named)
def test_evidence_is_laid_out_where_the_bits_lie(network):
    bits = bits_of(network, random_rows(network, 3))
    for evidence in bits.evidence(random_images(network, 4, black=0.1), OBJECTIVES["H"]):
        values = [torch.from_numpy(whole_values(layer))[None] for layer in evidence.layers]
        by_name = {t.name: v for t, v in zip(network.tensors, values, strict=True)}
        expected = layout_for(network).flatten(by_name)[0].numpy()
        places, values = laid_out(evidence)
        assert len(np.unique(places)) == len(places)
        found = np.zeros_like(expected)
        found.reshape(-1, 64)[places] = values
        assert np.array_equal(found, expected)


def test_images_of_one_colour_are_answered():
    """Every pixel is ground, so no pixel has evidence of its own."""
    rows, images = random_rows(ODD, 30), torch.full((2, 1, 67), -0.4)
    found = bits_of(ODD, rows).one_shot(images, OBJECTIVES["H"])
    expected = one_shot(plain_of(ODD, rows, images, OBJECTIVES["H"]))
    assert found.tasks.tolist() == expected.tasks.tolist()
