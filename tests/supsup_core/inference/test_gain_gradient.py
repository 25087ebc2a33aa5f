"""The gradient by gains: as PackedGradient for masks over weights, as autograd for units."""

import pytest
import torch

from supsup_core.inference.algorithms import one_shot
from supsup_core.inference.gain_gradient import GainGradient
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.inference.slopes import PackedGradient
from supsup_core.networks.mlp import Network, fixed_weights
from supsup_core.states.bits import PackedMasks
from supsup_core.states.layout import MaskLayout
from supsup_core.states.masking import UNITS, WEIGHTS

NETWORK = Network("two hidden layers", (16, 12, 8, 6))
CPU = torch.device("cpu")


@pytest.fixture
def images():
    return torch.randn(3, 10, 16, generator=torch.Generator().manual_seed(0))


def packed_masks(layout, rng, num_tasks=5):
    masks = [rng.random((num_tasks, *shape)) < 0.5 for shape in layout.mask_shapes]
    return PackedMasks(layout, layout.pack(masks), CPU)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_over_weights_it_is_the_packed_gradient(name, images, rng):
    masks = packed_masks(MaskLayout.of(NETWORK), rng)
    weights, objective = fixed_weights(NETWORK, 0), OBJECTIVES[name]
    alphas = torch.full((1, 5), 0.2)
    found = GainGradient(WEIGHTS, weights, masks, images, objective, 4)(alphas)
    expected = PackedGradient(weights, masks, images, objective, 4)(alphas)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_over_units_it_is_the_slope_in_the_coefficients(shared, images, rng):
    masks = packed_masks(MaskLayout.of_units(NETWORK), rng)
    weights, objective = fixed_weights(NETWORK, 0), OBJECTIVES["H"]
    gradient = GainGradient(UNITS, weights, masks, images, objective, 6)
    alphas = torch.from_numpy(rng.random((1 if shared else 3, 5))).float()
    floats = [torch.from_numpy(m).float() for m in masks.layout.unpack(masks.rows)]
    expected = []
    for query, alpha in zip(images, alphas.expand(3, -1), strict=True):
        leaf = alpha.clone().requires_grad_()
        gains = [torch.einsum("t,toi->oi", leaf, mask) for mask in floats]
        value = objective(UNITS.on(weights, query)(gains), 6).mean()
        expected.append(torch.autograd.grad(value, leaf)[0])
    assert torch.allclose(gradient(alphas), torch.stack(expected), atol=1e-5)
    assert one_shot(gradient).tasks.shape == (3,)
