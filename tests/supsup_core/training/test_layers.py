import numpy as np
import torch

from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.planes import KeepMethod
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.protocol import MaskedTensor
from supsup_core.training.fused_layers import FusedThresholdLayer, layer_form
from supsup_core.training.layers import BlockLayer
from supsup_core.training.optimizers import SGD

LAYER = MaskedTensor("layer1", (3, 4), fan_in=4, source="layer1")


class Negative(Threshold):
    def mask(self, tensor, scores):
        return scores < 0


def test_layer_learns_by_the_slope_of_its_rule(rng):
    """The slope of edge-popup is sign(score), so a score below zero moves the other way."""
    scores, signs = rng.uniform(-1, 1, (2, 3, 4)), rng.choice([-1, 1], (2, 3, 4))
    delta, x = rng.standard_normal((2, 3, 9)), rng.standard_normal((2, 4, 9))
    cpu = torch.device("cpu")
    layer = BlockLayer(LAYER, scores, signs, EdgePopup(0.5), SGD(0.0), torch.float64, cpu)
    layer.learn(torch.from_numpy(delta), torch.from_numpy(x), 0.1)
    expected = scores - 0.1 * (delta @ x.transpose(0, 2, 1)) * signs * np.sign(scores)
    np.testing.assert_allclose(layer._scores, expected, rtol=1e-12)
    kept = np.abs(expected) >= np.sort(np.abs(expected).reshape(2, -1))[:, 6, None, None]
    assert np.array_equal(layer.masked, signs * kept)


class Other(KeepMethod):  # has all attributes of a method, but is no Threshold
    mask = Threshold.mask


def test_a_gpu_has_plain_layers():
    assert layer_form(Threshold(), LAYER, torch.device("cuda")) is BlockLayer


def test_rule_chooses_the_form_on_the_cpu():
    assert layer_form(Threshold(), LAYER, torch.device("cpu")) is FusedThresholdLayer
    assert layer_form(Other(), LAYER, torch.device("cpu")) is BlockLayer


def test_a_rule_derived_from_the_threshold_is_another_rule():
    assert layer_form(Negative(), LAYER, torch.device("cpu")) is BlockLayer
