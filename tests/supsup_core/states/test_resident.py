import numpy as np
import pytest
import torch

from conformance.states import LAYOUTS, NUM_TASKS, StatesTests, random_state
from supsup_core.states import resident, resident_products, resident_storage
from supsup_core.states.resident import ResidentStates

CPU = torch.device("cpu")
KEEP = LAYOUTS["one plane"]


class TestResidentStates(StatesTests):
    @pytest.fixture(params=["unpacked", "packed", "grown"])
    def states(self, layout, stored, request, monkeypatch):
        """States whose bits are stored unpacked, or are unpacked in parts, or that have grown."""
        monkeypatch.setattr(resident, "PART_BYTES", 4 * layout.row_bits * 2)
        for module in (resident, resident_products):
            monkeypatch.setattr(module, "SUMMED_BITS", 128)
        for module in (resident, resident_products, resident_storage):
            monkeypatch.setattr(module, "ROWS_TOGETHER", 2)
        monkeypatch.setattr(resident_products, "_SUMS_BYTES", 4 * 3 * 9 * 4)
        monkeypatch.setattr(resident, "_PRODUCT_BYTES", 4 * layout.row_bits * 2)
        rows = layout.pack(stored)
        if request.param == "grown":
            return ResidentStates(layout, rows[:2], CPU).grown(rows[:3]).grown(rows)
        unpacked_bytes = 2**30 if request.param == "unpacked" else 0
        made = ResidentStates(layout, rows, CPU, unpacked_bytes=unpacked_bytes)
        assert made.is_unpacked == (request.param == "unpacked")
        return made


@pytest.fixture
def rows(rng):
    return KEEP.pack([random_state(KEEP, rng) for _ in range(NUM_TASKS)])


@pytest.mark.parametrize("unpacked_bytes", [0, 2**30])
def test_states_grow_in_place_until_they_are_full(rows, unpacked_bytes):
    first = ResidentStates(KEEP, rows[:2], CPU, unpacked_bytes=unpacked_bytes)
    second = first.grown(rows[:5])
    assert second.packed.data_ptr() == first.packed.data_ptr()
    again = first.grown(rows[[0, 1, 6]])
    assert again.packed.data_ptr() != first.packed.data_ptr()
    many = np.concatenate([rows] * 20)
    large = second.grown(np.concatenate([rows[:5], many]))
    assert large.packed.data_ptr() != first.packed.data_ptr()
    for states, expected in (
        (first, rows[:2]),
        (second, rows[:5]),
        (again, rows[[0, 1, 6]]),
        (large, np.concatenate([rows[:5], many])),
    ):
        assert np.array_equal(states.packed.numpy(), expected)
        ones = np.unpackbits(expected, axis=1, bitorder="little").sum(axis=0)
        assert np.array_equal(states.ones.numpy(), ones)
        alphas = torch.eye(len(states))[-1:]
        bits = states.combine(alphas)["layer1"].flatten().numpy()
        plane = KEEP.planes[0].bits
        assert np.array_equal(bits, np.unpackbits(expected[-1], bitorder="little")[plane])


def test_fewer_rows_are_refused(rows):
    with pytest.raises(ValueError, match="at least the 4 earlier states, got 3"):
        ResidentStates(KEEP, rows[:4], CPU).grown(rows[:3])


def test_read_only_rows_are_copied(rows):
    rows.flags.writeable = False
    assert np.array_equal(ResidentStates(KEEP, rows, CPU).packed.numpy(), rows)


@pytest.mark.parametrize("num_limbs", [2, 3])
def test_errors_of_products_are_below_their_bound(rows, num_limbs, monkeypatch):
    for module in (resident, resident_products):
        monkeypatch.setattr(module, "SUMMED_BITS", 256)
    states = ResidentStates(KEEP, rows, CPU)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(50, KEEP.row_bits, generator=generator).exp()
    tasks = torch.arange(NUM_TASKS).expand(50, -1)
    exact = states.exact_products(vectors, tasks)
    bits = torch.from_numpy(np.unpackbits(rows, axis=1, bitorder="little"))
    torch.testing.assert_close(exact, vectors.double() @ bits.double().t())
    error = (states.products(vectors, num_limbs) - exact).abs()
    assert (error <= states.products_error * vectors.sum(dim=1, keepdim=True)).all()
    # One limb has larger errors than the bound allows, so the bound is not too large to mean much.
    one = (states._multiplied(states._limbs(vectors, 1)) - exact).abs()
    assert (one > states.products_error * vectors.sum(dim=1, keepdim=True)).any()


def test_three_limbs_are_exact(rng):
    from supsup_core.kernels.gpu import packed_plain

    vectors = torch.from_numpy(rng.standard_normal((3, 1000)).astype(np.float32)) * 1e-3
    limbs = packed_plain.limbs(vectors, 3, torch.bfloat16)
    assert torch.equal(limbs.double().sum(dim=0), vectors.double())


@pytest.mark.parametrize("shape", [(0, 192), (3, 191), (3, 256)])
def test_rows_that_are_none_or_of_another_length_are_refused(shape):
    with pytest.raises(ValueError, match=r"rows must have shape|one state or more, got none"):
        ResidentStates(KEEP, np.zeros(shape, dtype=np.uint8), CPU)
