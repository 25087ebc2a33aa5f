import numpy as np
import pytest
import torch

from supsup_core.networks.mlp import fixed_weights
from supsup_core.states import bits as superposition
from supsup_core.states.bits import PackedMasks, superpose_dense
from supsup_core.states.layout import MaskLayout

CPU = torch.device("cpu")
NUM_TASKS = 7


@pytest.fixture
def masks(tiny, rng):
    return [rng.random((NUM_TASKS, *layer.shape)) < 0.5 for layer in tiny.layers]


@pytest.fixture(params=[2, 7, 64])
def packed(tiny, masks, request, monkeypatch):
    """Seven masks, unpacked in four parts, in one full part, or in one part with room."""
    layout = MaskLayout.of(tiny)
    monkeypatch.setattr(superposition, "UNPACKED_BYTES", 4 * layout.row_bits * request.param)
    return PackedMasks(layout, layout.pack(masks), CPU)


@pytest.fixture
def alphas(rng):
    return torch.from_numpy(rng.dirichlet(np.ones(NUM_TASKS), size=3)).float()


def test_dense_superposition_is_the_weighted_sum_of_masked_weights(tiny, masks, alphas):
    weights = fixed_weights(tiny, 0)
    floats = [torch.from_numpy(mask).float() for mask in masks]
    found = superpose_dense(weights, floats, alphas[0])
    for effective, weight, mask in zip(found, weights, floats, strict=True):
        expected = sum(a * m * weight for a, m in zip(alphas[0], mask, strict=True))
        torch.testing.assert_close(effective, expected)


def test_one_coefficient_of_one_gives_that_mask_alone(tiny, masks, packed):
    weights = fixed_weights(tiny, 0)
    found = packed.effective_weights(weights, torch.eye(NUM_TASKS)[4:5])
    for effective, weight, mask in zip(found, weights, masks, strict=True):
        assert torch.equal(effective[0], weight * torch.from_numpy(mask[4]))


def test_packed_superposition_equals_the_dense_one(tiny, masks, packed, alphas):
    weights = fixed_weights(tiny, 0)
    floats = [torch.from_numpy(mask).float() for mask in masks]
    found = packed.effective_weights(weights, alphas)
    for q, alpha in enumerate(alphas):
        expected = superpose_dense(weights, floats, alpha)
        for effective, plain in zip(found, expected, strict=True):
            torch.testing.assert_close(effective[q], plain)


def test_dot_multiplies_each_vector_with_each_mask(tiny, masks, packed, rng):
    values = [
        torch.from_numpy(rng.standard_normal((2, *layer.shape)).astype(np.float32))
        for layer in tiny.layers
    ]
    expected = sum(
        np.einsum("qoi,toi->qt", value.double().numpy(), mask)
        for value, mask in zip(values, masks, strict=True)
    )
    found = packed.dot(packed.layout.flatten(values))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_combine_and_dot_are_adjoint(packed, alphas, rng):
    vectors = torch.from_numpy(rng.standard_normal((3, packed.layout.row_bits))).float()
    one = (packed.combine(alphas) * vectors).sum(dim=1)
    other = (packed.dot(vectors) * alphas).sum(dim=1)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_masks_are_unpacked_once_each_and_few_at_a_time(packed):
    parts = [(np.arange(NUM_TASKS)[where], floats) for where, floats in packed.unpacked()]
    assert np.concatenate([where for where, _ in parts]).tolist() == list(range(NUM_TASKS))
    for where, floats in parts:
        assert len(where) == len(floats)
        assert floats.nbytes <= superposition.UNPACKED_BYTES


def test_a_mask_larger_than_the_bytes_at_once_is_unpacked_alone(packed, monkeypatch):
    monkeypatch.setattr(superposition, "UNPACKED_BYTES", 1)
    assert [len(floats) for _, floats in packed.unpacked()] == [1] * NUM_TASKS


@pytest.mark.parametrize("shape", [(0, 192), (3, 191), (3, 256)])
def test_rows_that_are_none_or_of_another_length_are_refused(tiny, shape):
    assert MaskLayout.of(tiny).row_bytes == 192
    with pytest.raises(ValueError, match=r"rows must have shape|at least one, got none"):
        PackedMasks(MaskLayout.of(tiny), np.zeros(shape, dtype=np.uint8), CPU)


@pytest.mark.parametrize("num_tasks", [6, 8])
def test_coefficients_for_another_number_of_masks_are_refused(packed, num_tasks):
    with pytest.raises(ValueError, match=r"alphas must have shape \(A, T\) = \(1, 7\)"):
        packed.combine(torch.ones(1, num_tasks))


def test_vectors_of_another_length_are_refused(packed):
    with pytest.raises(ValueError, match="vectors must have shape"):
        packed.dot(torch.ones(1, packed.layout.row_bits - 1))
