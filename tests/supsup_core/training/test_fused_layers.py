"""The fused step of every rule, against the steps of BlockLayer in torch."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from supsup_core.methods.biprop import Biprop
from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.multicoated import Multicoated
from supsup_core.methods.n_of_m import NOfM
from supsup_core.methods.signed import Signed
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.protocol import MaskedTensor
from supsup_core.training.fused_layers import FUSED, layer_form
from supsup_core.training.layers import BlockLayer
from supsup_core.training.optimizers import SGD

CPU = torch.device("cpu")
# Rows of 32 inputs: the last group of three has two inputs.
LAYER = MaskedTensor("layer1", (20, 32), fan_in=32, source="layer1")
METHODS = {
    "threshold": Threshold(),
    "edge_popup": EdgePopup(0.3),
    "multicoated": Multicoated((0.5, 0.3, 0.1), scale_fan=True),
    "n_of_m": NOfM(1, 3, decay_of_dropped=0.1),
    "all_of_m": NOfM(4, 4),
    "signed": Signed(),
    "biprop": Biprop(0.3),
}


@pytest.fixture(params=METHODS.values(), ids=METHODS)
def method(request):
    return request.param


def pair(method, optimizer, dtype, rng):
    """Make the fused layer and the plain layer of two tasks, with the same values."""
    scores, signs = rng.uniform(-1, 1, (2, 20, 32)) / 32**0.5, rng.choice([-1.0, 1.0], (2, 20, 32))
    given = scores, signs, method, optimizer, dtype, CPU
    if method.scaling(LAYER):  # the tasks share the magnitudes
        given = *given, rng.uniform(0.5, 2, (1, 20, 32))
    return [form(LAYER, *given) for form in (layer_form(method, LAYER, CPU), BlockLayer)]


def assert_same_planes(one, other):
    for bits, same in zip(one.planes(), other.planes(), strict=True):
        assert np.array_equal(bits, same)


def test_every_rule_is_tried():
    assert {type(method.fast_rule(LAYER)) for method in METHODS.values()} == FUSED.keys()


def test_fused_steps_give_the_masks_of_plain_steps(method, brief, rng):
    fused, plain = pair(method, brief.make_optimizer(), torch.float64, rng)
    assert type(fused) is not BlockLayer
    begun = plain.planes()
    rate = min(brief.learning_rate, 0.03)
    for count in range(20):
        delta, x = rng.standard_normal((2, 20, 9)), rng.standard_normal((2, 32, 9))
        shown = torch.from_numpy(x if count % 2 else x[0])
        for layer in (fused, plain):
            layer.learn(torch.from_numpy(delta), shown, rate / (1 + count))
        assert torch.equal(fused.masked, plain.masked)
        assert (fused.scale is None) == (plain.scale is None) == (method.scaling(LAYER) is None)
        if fused.scale is not None:
            torch.testing.assert_close(fused.scale, plain.scale, rtol=1e-14, atol=0)
        assert_same_planes(fused, plain)
        torch.testing.assert_close(fused._scores.abs(), plain._scores.abs(), rtol=1e-9, atol=1e-12)
    moves = method != METHODS["all_of_m"]
    for bits, now in zip(begun, plain.planes(), strict=True):
        assert (bits != now).any() == moves


@pytest.mark.parametrize(("dtype", "weight_decay"), [(torch.float32, 0.0), (torch.bfloat16, 3.0)])
def test_fused_steps_without_roots_are_plain_steps_bit_for_bit(method, dtype, weight_decay, rng):
    """Square roots in torch may differ in the last bit, so the optimiser is SGD."""
    fused, plain = pair(method, SGD(0.9, weight_decay), dtype, rng)
    for _ in range(10):
        gradients = torch.from_numpy(rng.standard_normal((2, 20, 32))).to(dtype)
        for layer in (fused, plain):
            layer.learn_from(gradients, 1e-2)
        assert fused.masked.dtype == dtype
        assert torch.equal(fused.masked, plain.masked)
        assert torch.equal(fused._scores.abs(), plain._scores.abs())
        assert_same_planes(fused, plain)


def test_weight_decay_makes_signed_masks_sparser(rng):
    """Without gradients, each |score| falls below the threshold."""
    fused, _ = pair(METHODS["signed"], SGD(0.0, weight_decay=0.5), torch.float32, rng)
    densities = []
    for _ in range(5):
        densities.append(np.mean(fused.planes()[0]))
        fused.learn_from(torch.zeros(2, 20, 32), 0.5)
    assert all(after < before for before, after in pairwise(densities))
    assert densities[-1] == 0  # 0.75 ** 4 < 0.4
