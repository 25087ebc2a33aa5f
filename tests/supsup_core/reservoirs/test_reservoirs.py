"""Tests of reservoirs: capacities, forgetting, and recall that lowers the energy."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pretended_cuda import CUDA, PretendedCuda
from supsup_core.names import RESERVOIR_RULES
from supsup_core.reservoirs import (
    Blocks,
    Centred,
    Hebb,
    Perceptron,
    Projection,
    Quantised,
    RandomFeatures,
    Reservoir,
    StackedBlocks,
    Storkey,
)
from supsup_core.reservoirs.recall import (
    SWEEPS,
    Recalled,
    erased,
    flipped,
    packed,
    recall,
    score,
    unpacked,
)
from supsup_core.reservoirs.rules import Rule, named_rule
from supsup_core.reservoirs.theory import break_even, capacity

DIM = 200
SYMMETRIC = [Hebb, Storkey, Projection]


RULES = [*SYMMETRIC, Perceptron]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def random_patterns(count, generator, dim=DIM, density=0.5):
    ones = torch.rand(count, dim, generator=generator) < density
    return 2.0 * ones - 1


def filled(reservoir, patterns):
    for pattern in patterns:
        reservoir.store(pattern)
    if isinstance(reservoir, Perceptron):
        reservoir.rehearse(patterns, sweeps=50)
    return reservoir


def exact(reservoir, patterns, generator, share=0.1, **more):
    cues = flipped(patterns, share, generator)
    found = recall(reservoir, cues, 30, generator, **more)
    return score(found, patterns, packed(patterns)).exact


# Storing


@pytest.mark.parametrize("rule", RULES)
def test_few_patterns_are_recalled_from_noisy_and_from_erased_cues(rule, generator):
    patterns = random_patterns(8, generator)
    reservoir = filled(rule(DIM), patterns)
    assert isinstance(reservoir, Reservoir)
    assert reservoir.num_stored == 8
    assert exact(reservoir, patterns, generator) == 1
    found = recall(reservoir, erased(patterns, 0.3, generator), 30, generator)
    assert torch.equal(found.states, patterns)
    assert found.settled.all()


def test_rules_hold_as_many_as_theory_orders(generator):
    """With D / 2 patterns, Hebb and Storkey have lost patterns, and projection has lost none."""
    patterns = random_patterns(DIM // 2, generator)
    found = {
        rule: exact(filled(rule(DIM), patterns), patterns, generator, 0.02) for rule in SYMMETRIC
    }
    assert found[Hebb] < 0.05
    assert found[Storkey] < 0.9
    assert found[Projection] == 1


@given(
    dim=st.integers(100, 300),
    share=st.floats(0.1, 0.8),
    rule=st.sampled_from([(Hebb, "hebb_exact", 0.3), (Storkey, "storkey", 0.25)]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=25, deadline=None)
def test_patterns_are_fixed_points_well_below_capacity(dim, share, rule, seed):
    kind, name, well_below = rule
    count = max(1, int(share * well_below * capacity(name, dim)))
    patterns = random_patterns(count, torch.Generator().manual_seed(seed), dim)
    assert torch.equal(filled(kind(dim), patterns).field(patterns).sign(), patterns)


@given(dim=st.integers(40, 200), load=st.floats(0.02, 0.8), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_projection_keeps_every_pattern_below_its_capacity(dim, load, seed):
    count = max(1, int(load * dim))
    patterns = random_patterns(count, torch.Generator().manual_seed(seed), dim)
    assert torch.equal(filled(Projection(dim), patterns).field(patterns).sign(), patterns)


def test_storkey_holds_more_than_hebb(generator):
    patterns = random_patterns(26, generator)
    by_hebb, by_storkey = (
        exact(filled(rule(DIM), patterns), patterns, generator) for rule in (Hebb, Storkey)
    )
    assert by_storkey > by_hebb + 0.3


def test_hebb_is_the_sum_of_outer_products(generator):
    patterns = random_patterns(5, generator)
    expected = patterns.t() @ patterns / DIM
    assert torch.allclose(filled(Hebb(DIM), patterns).weights, expected, atol=1e-6)


def test_storkey_by_its_formula(generator):
    patterns = random_patterns(5, generator)
    expected = torch.zeros(DIM, DIM)
    for z in patterns:
        h = expected @ z
        outer = torch.outer(z, z) - torch.outer(z, h) - torch.outer(h, z) - torch.eye(DIM)
        expected = expected + outer / DIM
    assert torch.allclose(filled(Storkey(DIM), patterns).weights, expected, atol=1e-6)


def test_projection_is_that_of_all_at_once(generator):
    patterns = random_patterns(60, generator)
    expected = patterns.t() @ torch.linalg.pinv(patterns.t())
    reservoir = filled(Projection(DIM), patterns)
    assert torch.allclose(reservoir.weights, expected, atol=1e-4)
    before = reservoir.weights.clone()
    reservoir.store(patterns[7])
    reservoir.store(-patterns[3])  # within the span of the stored patterns
    assert torch.allclose(reservoir.weights, before, atol=1e-5)


def test_rehearsal_keeps_more_patterns_than_there_are_units(generator):
    patterns = random_patterns(int(1.3 * DIM), generator)
    reservoir = Perceptron(DIM, share=0.0)
    assert not reservoir.rehearse(patterns, sweeps=1)
    assert reservoir.rehearse(patterns, sweeps=2000)
    assert torch.equal(reservoir.field(patterns).sign(), patterns)
    assert (reservoir.weights.diagonal() == 0).all()


def test_random_features_recall_few_patterns_in_a_memory_of_constant_size(generator):
    patterns = random_patterns(4, generator, dim=32)
    reservoir = RandomFeatures(32, 40_000, beta=0.05, generator=generator)
    assert isinstance(reservoir, Reservoir)
    empty = reservoir.num_bytes
    filled(reservoir, patterns)
    assert exact(reservoir, patterns, generator) == 1
    assert reservoir.num_bytes == empty == 8 * 40_000
    kernels = (-0.05 / 2 * (patterns[0] - patterns).square().sum(dim=1)).exp()
    assert reservoir.energy(patterns[:1]).item() == pytest.approx(
        -math.log(kernels.sum()), abs=0.05
    )


@pytest.mark.parametrize(
    "reservoir",
    [
        *(rule(64) for rule in RULES),
        RandomFeatures(64, 500, 0.02, torch.Generator().manual_seed(0)),
        Centred(Hebb(64), 0.3),
        Blocks(64, 40, Hebb),
        StackedBlocks(64, 40, Hebb),
    ],
    ids=lambda reservoir: type(reservoir).__name__,
)
def test_the_field_of_some_units_is_that_of_all(reservoir, generator):
    filled(reservoir, random_patterns(6, generator, dim=64))
    states = random_patterns(3, generator, dim=64)
    units = torch.tensor([5, 0, 63])
    some = reservoir.field(states, units)
    assert torch.allclose(some, reservoir.field(states)[:, units], atol=1e-6)


@pytest.mark.parametrize("rule", SYMMETRIC)
def test_the_field_is_the_slope_of_the_energy(rule, generator):
    reservoir = filled(rule(50), random_patterns(6, generator, dim=50))
    states = torch.randn(3, 50, generator=generator, requires_grad=True)
    (slope,) = torch.autograd.grad(reservoir.energy(states).sum(), states)
    assert torch.allclose(-slope, reservoir.field(states.detach()), atol=1e-5)


def test_a_pattern_of_another_length_is_refused():
    with pytest.raises(ValueError, match="pattern must have shape"):
        Hebb.store.__wrapped__(Hebb(5), torch.ones(4))
    centred = Centred(Hebb(5))
    with pytest.raises(ValueError, match="pattern must have shape"):
        Centred.store.__wrapped__(centred, torch.ones(1))
    assert (centred.mean.tolist(), centred.num_stored) == ([0.0] * 5, 0)


# Sparse patterns, and weights of few bits


def test_sparse_patterns_need_centring(generator):
    patterns = random_patterns(15, generator, density=0.15)
    assert exact(filled(Hebb(DIM), patterns), patterns, generator, 0.05) < 0.1
    assert exact(filled(Centred(Hebb(DIM), 0.15), patterns), patterns, generator, 0.05) > 0.6
    assert exact(filled(Centred(Projection(DIM), 0.15), patterns), patterns, generator, 0.05) == 1


def test_perceptrons_hold_sparse_patterns_as_they_are(generator):
    patterns = random_patterns(40, generator, density=0.15)
    assert exact(filled(Perceptron(DIM), patterns), patterns, generator, 0.05) == 1
    centred = Centred(Perceptron(DIM), 0.15)
    for pattern in patterns:
        centred.store(pattern)
    centred.inner.rehearse(centred.centred(patterns), sweeps=50)
    assert exact(centred, patterns, generator, 0.05) < 0.5


def test_a_mean_that_is_not_needed_changes_nothing(generator):
    patterns = random_patterns(15, generator, density=0.15)
    raw, plain = Hebb(DIM), Centred(Hebb(DIM), 0.15, is_needed=False)
    for reservoir in (raw, plain):
        filled(reservoir, patterns)
    assert torch.equal(plain.field(patterns), raw.field(patterns))
    assert torch.equal(plain.energy(patterns), raw.energy(patterns))
    assert plain.mean.mean() < -0.5  # still known, because a search starts from the mean


def test_packed_states_come_back_in_part(generator):
    states = random_patterns(5, generator, dim=45)
    for first, end in ((0, 45), (3, 20), (16, 17), (40, 45)):
        assert torch.equal(unpacked(packed(states), first, end), states[:, first:end])


def test_units_that_are_one_in_most_patterns_need_centring(generator):
    usual = torch.where(torch.rand(DIM, generator=generator) < 0.5, 1.0, -1.0)
    patterns = flipped(usual.expand(15, -1), 0.35, generator)
    assert exact(filled(Hebb(DIM), patterns), patterns, generator, 0.05) < 0.3
    centred = filled(Centred(Hebb(DIM)), patterns)
    assert exact(centred, patterns, generator, 0.05) > 0.9
    assert centred.num_bytes == Hebb(DIM).num_bytes + 4 * DIM
    # The expected mean of 0 counts as ten patterns, so the sum of 15 patterns is divided by 25.
    assert torch.allclose(centred.mean, patterns.sum(dim=0) / 25)


def test_the_same_mean_goes_about_another_reservoir(generator):
    patterns = random_patterns(6, generator, density=0.2)
    whole = filled(Centred(Projection(DIM), 0.2), patterns)
    rounded = whole.over(Quantised(whole.inner, 8))
    assert torch.equal(rounded.mean, whole.mean)
    assert exact(rounded, patterns, generator) == 1


def test_what_is_not_known_is_at_its_mean(generator):
    patterns = random_patterns(6, generator, density=0.2)
    reservoir = filled(Centred(Projection(DIM), 0.2), patterns)
    found = recall(reservoir, erased(patterns, 0.5, generator), 30, generator)
    assert torch.equal(found.states, patterns)


@pytest.mark.parametrize(("num_bits", "num_bytes"), [(8, 200 * 200 + 800), (4, 200 * 100 + 800)])
def test_few_bits_are_enough_for_few_patterns(num_bits, num_bytes, generator):
    patterns = random_patterns(30, generator)
    reservoir = filled(Projection(DIM), patterns)
    rounded = Quantised(reservoir, num_bits)
    assert rounded.num_bytes == num_bytes
    assert rounded.weights.unique(dim=0).shape == (DIM, DIM)
    assert max(len(row.unique()) for row in rounded.weights) <= 2**num_bits - 1
    assert exact(rounded, patterns, generator) == 1


def test_two_bits_lose_what_eight_keep(generator):
    patterns = random_patterns(100, generator)
    reservoir = filled(Projection(DIM), patterns)
    kept, lost = (exact(Quantised(reservoir, n), patterns, generator, 0.02) for n in (8, 2))
    assert kept == 1
    assert lost < 0.5


@pytest.mark.parametrize("num_bits", [1, 9])
def test_bits_out_of_range_are_refused(num_bits):
    with pytest.raises(ValueError, match=r"num_bits must be in \[2, 8\]"):
        Quantised(Hebb(4), num_bits)


# Blocks


def test_blocks_are_reservoirs_side_by_side(generator):
    patterns = random_patterns(5, generator, dim=50)
    blocks = filled(Blocks(50, 20, Projection), patterns)
    assert [part.dim for part in blocks.parts] == [16, 17, 17]
    sizes = [16, 17, 17]
    assert blocks.num_bytes == 4 * (16**2 + 2 * 17**2)
    alone = [
        filled(Projection(n), some) for n, some in zip(sizes, patterns.split(sizes, 1), strict=True)
    ]
    states = random_patterns(3, generator, dim=50)
    parts = list(zip(alone, states.split(sizes, dim=1), strict=True))
    assert torch.equal(blocks.field(states), torch.cat([r.field(s) for r, s in parts], dim=1))
    assert torch.allclose(blocks.energy(states), sum(r.energy(s) for r, s in parts))
    rounded = blocks.replaced(lambda part: Quantised(part, 4))
    assert rounded.num_bytes == 128 + 145 + 145 + 4 * 50
    assert blocks.num_bytes == 4 * (16**2 + 2 * 17**2)


@pytest.mark.parametrize("kind", [Blocks, StackedBlocks])
def test_blocks_have_a_unit_at_least(kind):
    with pytest.raises(ValueError, match="block must be >= 1, got 0"):
        kind(5, 0, Hebb)


# Many patterns at once


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("is_centred", [False, True])
def test_patterns_are_stored_together_as_one_by_one(rule, is_centred, generator):
    patterns = random_patterns(70, generator, density=0.4)
    patterns[40] = patterns[3]  # a pattern in the span of earlier patterns
    patterns[41] = -patterns[40]
    alone, together = rule(DIM), rule(DIM)
    outer = [Centred(one, 0.4) if is_centred else one for one in (alone, together)]
    for pattern in patterns:
        outer[0].store(pattern)
    for some in patterns.split([3, 50, 17]):
        outer[1].store_all(some)
    assert outer[0].num_stored == outer[1].num_stored == 70
    scale = alone.weights.abs().max()
    assert torch.allclose(together.weights / scale, alone.weights / scale, atol=1e-4)
    if is_centred:
        assert torch.equal(outer[0].mean, outer[1].mean)


def test_patterns_of_another_length_are_refused():
    for reservoir in (Hebb(5), Centred(Hebb(5)), StackedBlocks(5, 2, Hebb)):
        with pytest.raises(ValueError, match="patterns must have shape"):
            type(reservoir).store_all.__wrapped__(reservoir, torch.ones(2, 4))


# Blocks as one tensor


@pytest.mark.parametrize("rule", SYMMETRIC)
@pytest.mark.parametrize(("dim", "block"), [(50, 20), (60, 20), (7, 10), (45, 4)])
def test_stacked_blocks_are_those_side_by_side(rule, dim, block, generator):
    patterns = random_patterns(9, generator, dim=dim)
    plain = filled(Blocks(dim, block, rule), patterns)
    stacked = StackedBlocks(dim, block, rule)
    assert isinstance(stacked, Reservoir)
    stacked.store(patterns[0])
    stacked.store_all(patterns[1:])
    assert (stacked.dim, stacked.num_stored, stacked.spans) == (dim, 9, plain.spans)
    assert stacked.num_bytes == plain.num_bytes
    for weights, part in zip(stacked.weights, plain.parts, strict=True):
        assert torch.allclose(weights[: part.dim, : part.dim], part.weights, atol=1e-5)
    states = random_patterns(3, generator, dim=dim)
    states[:, ::5] = 0
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(stacked.field(states), plain.field(states), **close)
    torch.testing.assert_close(stacked.energy(states), plain.energy(states), **close)
    units = torch.tensor([dim - 1, 0, 5])
    torch.testing.assert_close(stacked.field(states, units), plain.field(states, units), **close)


@pytest.mark.parametrize("num_bits", [3, 8])
def test_stacked_blocks_are_rounded_as_those_side_by_side(num_bits, generator):
    patterns = random_patterns(6, generator, dim=50)
    plain = filled(Blocks(50, 20, Hebb), patterns)
    stacked = StackedBlocks(50, 20, Hebb)
    stacked.store_all(patterns)
    before = stacked.weights.clone()
    one, other = stacked.rounded(num_bits), plain.replaced(lambda p: Quantised(p, num_bits))
    assert one.num_bytes == other.num_bytes < stacked.num_bytes
    assert torch.equal(stacked.weights, before)
    torch.testing.assert_close(one.field(patterns), other.field(patterns), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", RESERVOIR_RULES)
def test_every_rule_with_a_name_has_blocks(name, generator):
    rule, patterns = named_rule(name), random_patterns(3, generator)
    blocks = rule.blocks(DIM, 150, torch.device("cpu"))
    kind = Blocks if name in ("perceptron", "random_features") else StackedBlocks
    assert type(blocks) is kind
    blocks.store_all(patterns)
    kept = rule.recalled_from(blocks)
    assert (kept is blocks) == (rule.num_bits is None)
    if name != "random_features":
        assert exact(kept, patterns, generator) == 1


class Fading(Hebb):
    def _change(self, pattern):
        self.weights.mul_(0.5)
        super()._change(pattern)


def test_a_rule_with_another_way_to_store_has_a_reservoir_per_block():
    blocks = Rule(Fading).blocks(50, 20, torch.device("cpu"))
    assert [type(part) for part in blocks.parts] == [Fading] * 3


@pytest.mark.parametrize("name", RESERVOIR_RULES)
def test_a_gpu_stores_and_recalls_as_the_cpu(name, generator):
    rule, patterns = named_rule(name), random_patterns(40, generator, density=0.4)
    found = {}
    for device in (torch.device("cpu"), CUDA):
        with PretendedCuda() as gpu:
            blocks = rule.blocks(DIM, 90, device)
            centred = Centred(blocks, 0.4, device, rule.needs_centring)
            shown = patterns.to(device)
            gpu.reset()
            centred.store_all(shown)
            if isinstance(blocks, StackedBlocks):
                assert gpu.waits == gpu.uploads == 0
            centred = centred.over(rule.recalled_from(blocks))
            found[device] = recall(centred, shown, 5, generator).states.cpu()
    assert torch.equal(*found.values())


def test_stacked_blocks_start_few_kernels_per_pattern(generator):
    with PretendedCuda() as gpu:
        blocks = StackedBlocks(1000, 10, Projection, CUDA)
        patterns = random_patterns(64, generator, dim=1000).to(CUDA)
        gpu.reset()
        blocks.store_all(patterns)
        assert gpu.kernels < 20 * 64  # with 100 blocks


@pytest.mark.parametrize("name", RESERVOIR_RULES)
def test_every_rule_with_a_name_recalls_few_patterns(name, generator):
    rule = named_rule(name)
    patterns = random_patterns(3, generator)
    reservoir = filled(rule.make(DIM, torch.device("cpu")), patterns)
    kept = rule.recalled_from(reservoir)
    assert kept.num_bytes <= Hebb(DIM).num_bytes
    if name == "random_features":  # with few frequencies, only the direction is right
        pull = (kept.field(patterns) * patterns).sum(dim=1)
        assert (pull > 0).all()
    else:
        assert exact(kept, patterns, generator) == 1


# Recall


@pytest.mark.parametrize("sweep", SWEEPS.values(), ids=SWEEPS)
def test_recall_stops_where_nothing_changes(sweep, generator):
    patterns = random_patterns(10, generator)
    reservoir = filled(Hebb(DIM), patterns)
    found = recall(reservoir, flipped(patterns, 0.1, generator), 30, generator, sweep)
    assert torch.equal(found.states, patterns)
    assert (found.steps >= 1).all()
    again = recall(reservoir, found.states, 30, generator, sweep)
    assert torch.equal(again.states, found.states)
    assert (again.steps == 0).all()
    assert again.settled.all()


def test_units_one_by_one_go_downhill_and_settle(generator):
    """Test with too many patterns, for which synchronous sweeps may cycle for ever."""
    reservoir = filled(Hebb(DIM), random_patterns(DIM, generator))
    states = random_patterns(5, generator)
    for _ in range(4):
        before = reservoir.energy(states)
        states = SWEEPS["asynchronous"](reservoir, states, generator)
        assert (reservoir.energy(states) <= before + 1e-4).all()
    found = recall(reservoir, states, 200, generator, SWEEPS["asynchronous"])
    assert found.settled.all()


def test_all_at_once_may_go_round_for_ever(generator):
    swap = Hebb(2)
    swap.weights = torch.tensor([[0.0, -1.0], [-1.0, 0.0]])
    found = recall(swap, torch.ones(1, 2), 10, generator)
    assert not found.settled.item()
    assert found.steps.item() == 10


def test_a_unit_without_a_field_stays_and_an_unknown_one_becomes_one(generator):
    found = recall(Hebb(3), torch.tensor([[-1.0, 1.0, 0.0]]), 5, generator)
    assert found.states.tolist() == [[-1.0, 1.0, 1.0]]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_cues_differ_in_as_many_bits_as_asked(share, generator):
    patterns = random_patterns(4, generator)
    turned, unknown = flipped(patterns, share, generator), erased(patterns, share, generator)
    assert ((turned != patterns).sum(dim=1) == share * DIM).all()
    assert (turned.abs() == 1).all()
    assert ((unknown == 0).sum(dim=1) == share * DIM).all()
    assert ((unknown == patterns) | (unknown == 0)).all()


def test_a_share_out_of_range_is_refused(generator):
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\], got 1.5"):
        flipped(torch.ones(1, 4), 1.5, generator)


def test_a_score_tells_apart_what_was_recalled():
    patterns = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1]])
    states = torch.stack([patterns[0], patterns[1], -patterns[0], torch.tensor([1.0, 1, 1, -1])])
    settled = torch.tensor([True, True, True, True])
    found = Recalled(states, torch.zeros(4, dtype=torch.int64), settled)
    told = score(found, patterns[[0, 0, 0, 0]], packed(patterns))
    assert (told.exact, told.other, told.spurious, told.unsettled) == (0.25, 0.5, 0.25, 0)
    assert told.bit_accuracy == pytest.approx((1 + 0.5 + 0 + 0.75) / 4)


# Theory


def test_capacities_follow_the_literature():
    assert capacity("hebb", 1000) == pytest.approx(138)
    assert capacity("hebb_exact", 1000) == pytest.approx(1000 / (2 * math.log(1000)))
    assert capacity("storkey", 1000) == pytest.approx(1000 / math.sqrt(2 * math.log(1000)))
    assert (capacity("projection", 1000), capacity("perceptron", 1000)) == (1000, 2000)
    with pytest.raises(ValueError, match="rule must be one of hebb"):
        capacity("hopfield", 10)


def test_a_float_reservoir_breaks_even_at_32_masks_a_unit():
    assert break_even(512, Hebb(512).num_bytes) == 32 * 512
