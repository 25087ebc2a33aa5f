import pickle

import pytest
import torch
from torch import nn

from supsup_core.networks.conv import small_conv
from supsup_core.networks.module import ModuleNetwork, as_network
from supsup_core.networks.protocol import FloatSpec, MaskedTensor
from supsup_core.streams import Role, stream


def linear(num_in=4, num_out=3, bias=False):
    return nn.Linear(num_in, num_out, bias=bias)


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


def test_tensors_are_the_weights_of_linear_and_convolution_layers():
    network = as_network("small_conv", small_conv((3, 8, 8), 5, channels=(4, 6)), (3, 8, 8))
    assert network.tensors == (
        MaskedTensor("conv1.weight", (4, 3, 3, 3), fan_in=27, source="conv1.weight"),
        MaskedTensor("conv2.weight", (6, 4, 3, 3), fan_in=36, source="conv2.weight"),
        MaskedTensor("linear.weight", (5, 24), fan_in=24, source="linear.weight"),
    )
    assert network.num_outputs == 5
    assert network.normalises
    # Each block counts the convolution at full size, then pooling, normalisation and ReLU.
    first, second = 4 * (64 + 3 * 16), 6 * (16 + 3 * 4)
    assert network.num_activations == first + second + 24 + 5


def test_statistics_are_those_of_each_normalisation():
    network = as_network("small_conv", small_conv((1, 4, 4), 5, channels=(3,)), (1, 4, 4))
    assert network.float_specs() == (
        FloatSpec("norm1.running_mean", "statistic", (3,), 0.0),
        FloatSpec("norm1.running_var", "statistic", (3,), 1.0),
    )


def test_groups_count_in_the_fan_in():
    module = nn.Sequential(nn.Conv1d(4, 6, 3, groups=2, bias=False), nn.Flatten())
    (tensor,) = ModuleNetwork("grouped", module, (4, 3)).tensors
    assert (tensor.shape, tensor.fan_in) == ((6, 2, 3), 6)


def test_weights_are_signed_kaiming_constants_from_a_stream():
    weights = ModuleNetwork("two", nn.Sequential(linear(), linear(3, 2)), (4,)).weights(7)
    bits = stream(7, Role.WEIGHTS, 1).integers(0, 2, size=(2, 3), dtype="int8")
    expected = torch.from_numpy(2.0 * bits - 1).float() * (2 / 3) ** 0.5
    assert torch.equal(weights["1.weight"], expected)


def test_other_parameters_keep_their_values():
    norm = nn.LayerNorm(3)
    norm.bias.data += 1
    network = ModuleNetwork("fixed", nn.Sequential(linear(), norm), (4,))
    norm.bias.data += 1  # the network has its own copy
    weights = network.weights(0)
    assert weights.keys() == {"0.weight", "1.weight", "1.bias"}
    assert weights["1.bias"].tolist() == [1, 1, 1]
    assert not network.normalises  # LayerNorm does not normalise over the batch


def test_the_module_is_left_alone():
    module = small_conv((1, 8, 8), 5)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    network = ModuleNetwork("small_conv", module, (1, 8, 8))
    floats = {spec.name: torch.ones(spec.shape) for spec in network.float_specs()}
    gains = {tensor.name: torch.ones(tensor.shape) for tensor in network.tensors}
    network.logits(network.weights(0), gains, torch.randn(4, 1, 8, 8), floats, track=True)
    assert all(layer.training for layer in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_the_masked_weights_of_the_module_do_not_travel():
    module = nn.Sequential(linear(300, 300), nn.ReLU(), linear(300, 2))
    assert len(pickle.dumps(ModuleNetwork("wide", module, (300,)))) < 10_000


@pytest.mark.parametrize("masked", [["*.in_proj_weight"], lambda name, p: "in_proj" in name])
def test_parameters_may_be_named(masked):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, bias=False, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=False)[0].mean(1)

    network = ModuleNetwork("attention", Attention(), (3, 4), masked=masked)
    assert [tensor.name for tensor in network.tensors] == ["attention.in_proj_weight"]
    gains = {t.name: torch.rand(2, *t.shape, requires_grad=True) for t in network.tensors}
    logits = network.logits(network.weights(0), gains, torch.randn(5, 3, 4))
    assert logits.shape == (2, 5, 4)
    torch.autograd.grad(logits.sum(), list(gains.values()))


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (linear(bias=True), (4,), "bias=False in masked layers, got bias of Linear"),
        (nn.Sequential(linear(bias=True)), (4,), "got 0.bias of Linear"),
        (nn.ReLU(), (4,), "expected parameters to mask, got none"),
        (linear(), (5,), "expected a module that takes inputs"),
        (nn.Conv1d(4, 3, 1, bias=False), (4, 2), "outputs of shape"),
        (nn.Sequential(linear(), Noise()), (4,), "randomness"),
        (nn.Sequential(linear(), nn.BatchNorm1d(3, momentum=None)), (4,), "momentum"),
        (
            nn.Sequential(
                nn.Conv1d(1, 2, 1, bias=False), nn.InstanceNorm1d(2, 1e-5, 0.1, False, True)
            ),
            (1, 3),
            "track_running_stats=False in InstanceNorm1d",
        ),
    ],
)
def test_modules_that_do_not_fit_are_refused(module, shape, message):
    with pytest.raises(ValueError, match=message):
        ModuleNetwork("odd", module, shape)


def test_patterns_that_fit_nothing_are_refused():
    with pytest.raises(ValueError, match=r"got \*\.wieght"):
        ModuleNetwork("odd", nn.Sequential(linear()), (4,), masked=["0.*", "*.wieght"])


@pytest.mark.parametrize(
    ("gains", "inputs", "message"),
    [
        ((2, 3, 3), (5, 4), r"weight must have shape \(B, \*\(3, 4\)\)"),
        ((1, 2, 3, 4), (5, 4), "weight must have shape"),
        ((2, 3, 4), (5, 3), "inputs must have shape"),
        ((2, 3, 4), (4, 5, 4), "with B = 2, got"),
        ((3, 4), (4, 5, 4), "inputs must have shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(gains, inputs, message):
    network = ModuleNetwork("one", linear(), (4,))
    with pytest.raises(ValueError, match=message):
        network.logits(network.weights(0), {"weight": torch.ones(gains)}, torch.ones(inputs))


def test_statistics_have_as_many_states_as_gains():
    network = ModuleNetwork("norm", nn.Sequential(linear(), nn.BatchNorm1d(3)), (4,))
    floats = {spec.name: torch.ones(spec.shape) for spec in network.float_specs()}
    with pytest.raises(ValueError, match="same number of states"):
        network.logits(
            network.weights(0), {"0.weight": torch.ones(2, 3, 4)}, torch.ones(5, 4), floats
        )


def test_a_network_stays_as_it_is():
    network = ModuleNetwork("one", linear(), (4,))
    assert as_network("other", network, (4,)) is network
    with pytest.raises(ValueError, match=r"network odd must be .* an nn\.Module, got int"):
        as_network("odd", 3, (4,))


def test_small_conv_refuses_images_that_are_too_small():
    with pytest.raises(ValueError, match="H and W >= 8"):
        small_conv((1, 7, 8), 5, channels=(4, 4, 4))
