import numpy as np
import pytest
import torch

from conformance.states import (
    LAYOUTS,
    NETWORK,
    NUM_TASKS,
    StatesTests,
    plain_states,
    random_state,
)
from supsup_core.states import bits
from supsup_core.states.bits import BitStates, superpose_counted

CPU = torch.device("cpu")
KEEP = LAYOUTS["one plane"]


class TestBitStates(StatesTests):
    @pytest.fixture(params=[2, 7, 64])
    def states(self, layout, stored, request, monkeypatch):
        """Seven states, unpacked in four parts, in one full part, or in one part that has room."""
        monkeypatch.setattr(bits, "UNPACKED_BYTES", 4 * layout.row_bits * request.param)
        return BitStates(layout, layout.pack(stored), CPU)


class TestDenseStates(StatesTests):
    def make(self, layout, stored):
        return plain_states(layout, stored)


@pytest.fixture
def stored(rng):
    return [random_state(KEEP, rng) for _ in range(NUM_TASKS)]


@pytest.fixture(params=[2, 7, 64])
def states(stored, request, monkeypatch):
    monkeypatch.setattr(bits, "UNPACKED_BYTES", 4 * KEEP.row_bits * request.param)
    return BitStates(KEEP, KEEP.pack(stored), CPU)


def test_one_coefficient_of_one_gives_that_mask_alone(stored, states):
    weights = NETWORK.weights(0)
    found = states.combine(torch.eye(NUM_TASKS)[4:5])
    for (name, weight), mask in zip(weights.items(), stored[4].planes, strict=True):
        assert torch.equal(weight * found[name][0], weight * torch.from_numpy(mask))


def test_dot_multiplies_each_vector_with_each_mask(stored, states, rng):
    values = {
        tensor.name: torch.from_numpy(rng.standard_normal((2, *tensor.shape)).astype(np.float32))
        for tensor in NETWORK.tensors
    }
    masks = [np.stack(mask) for mask in zip(*(state.planes for state in stored), strict=True)]
    expected = sum(
        np.einsum("qoi,toi->qt", value.double().numpy(), mask)
        for value, mask in zip(values.values(), masks, strict=True)
    )
    np.testing.assert_allclose(states.dot(values), expected, rtol=1e-4, atol=1e-4)


def test_dense_superposition_is_differentiable_in_the_coefficients(stored):
    alphas = torch.full((1, NUM_TASKS), 0.1, requires_grad=True)
    sum(gain.sum() for gain in plain_states(KEEP, stored).combine(alphas).values()).backward()
    expected = [sum(mask.sum() for mask in state.planes) for state in stored]
    assert alphas.grad[0].tolist() == pytest.approx(expected)


def test_masks_are_unpacked_once_each_and_few_at_a_time(states):
    parts = [(np.arange(NUM_TASKS)[where], floats) for where, floats in states._bits()]
    assert np.concatenate([where for where, _ in parts]).tolist() == list(range(NUM_TASKS))
    for where, floats in parts:
        assert len(where) == len(floats)
        assert floats.nbytes <= bits.UNPACKED_BYTES


def test_a_mask_larger_than_the_bytes_at_once_is_unpacked_alone(states, monkeypatch):
    monkeypatch.setattr(bits, "UNPACKED_BYTES", 1)
    assert [len(floats) for _, floats in states._bits()] == [1] * NUM_TASKS
    assert [len(gains["layer1"]) for gains, _ in states.unpacked()] == [1] * NUM_TASKS


@pytest.mark.parametrize("name", ["one plane", "two planes", "three coats"])
def test_states_in_equal_shares_follow_from_how_many_have_a_one(name, rng):
    layout = LAYOUTS[name]
    rows = layout.pack([random_state(layout, rng) for _ in range(NUM_TASKS)])
    counts = np.unpackbits(rows, axis=1, bitorder="little").sum(axis=0, dtype=np.int32)
    found = superpose_counted(layout, counts, NUM_TASKS)
    expected = BitStates(layout, rows, CPU).combine(torch.full((1, NUM_TASKS), 1 / NUM_TASKS))
    for tensor, gain in found.items():
        torch.testing.assert_close(gain, expected[tensor][0])


@pytest.mark.parametrize("shape", [(0, 192), (3, 191), (3, 256)])
def test_rows_that_are_none_or_of_another_length_are_refused(shape):
    assert KEEP.row_bytes == 192
    with pytest.raises(ValueError, match=r"rows must have shape|one state or more, got none"):
        BitStates(KEEP, np.zeros(shape, dtype=np.uint8), CPU)


@pytest.mark.parametrize("num_tasks", [6, 8])
def test_coefficients_for_another_number_of_masks_are_refused(states, num_tasks):
    with pytest.raises(ValueError, match=r"alphas must have shape \(A, T\) = \(1, 7\)"):
        states.combine(torch.ones(1, num_tasks))
