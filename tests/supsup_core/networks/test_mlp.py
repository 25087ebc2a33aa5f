from math import sqrt

import numpy as np
import pytest
import torch

from supsup_core import names
from supsup_core.names import KAIMING_INITS
from supsup_core.networks.mlp import MLP, draw_signs, draw_weights, forward, lenet_300_100, mlp
from supsup_core.networks.protocol import MaskedTensor, num_gains


def layers_of(network, seed):
    return list(network.weights(seed).values())


def test_weights_are_signed_kaiming_constants():
    network = lenet_300_100((28, 28), 20)
    for weight, fan_in in zip(layers_of(network, 0), (784, 300, 100), strict=True):
        constant = torch.tensor((2 / fan_in) ** 0.5, dtype=torch.float32)
        assert torch.equal(weight.abs(), constant.expand(weight.shape))
        assert weight.dtype == torch.float32


def test_about_half_of_the_weights_are_positive():
    for weight in layers_of(lenet_300_100((784,), 100), 1):
        four_sigma = 2 / weight.numel() ** 0.5
        assert abs((weight > 0).double().mean().item() - 0.5) < four_sigma


def test_weights_do_not_depend_on_other_layers():
    shallow = layers_of(MLP("a", (16, 12)), 5)
    deep = layers_of(MLP("b", (16, 12, 8, 6)), 5)
    other_head = layers_of(MLP("c", (16, 12, 8, 60)), 5)
    assert torch.equal(shallow[0], deep[0])
    assert torch.equal(deep[1], other_head[1])


def test_layers_of_one_shape_and_seeds_have_weights_of_their_own():
    first, second = layers_of(MLP("square", (32, 32, 32)), 0)
    assert not torch.equal(first, second)
    assert not torch.equal(first, layers_of(MLP("square", (32, 32, 32)), 1)[0])


def test_first_signs_are_pinned():
    assert draw_signs((2, 8), seed=0, index=0).tolist() == [
        [1, -1, 1, 1, -1, -1, -1, 1],
        [-1, 1, 1, 1, 1, 1, -1, 1],
    ]


@pytest.mark.parametrize(
    ("name", "hidden", "shapes", "num_weights"),
    [
        ("lenet_300_100", None, [(300, 784), (100, 300), (500, 100)], 315_200),
        ("fc_1024_1024", None, [(1024, 784), (1024, 1024), (500, 1024)], 2_363_392),
        ("mlp", [64], [(64, 784), (500, 64)], 82_176),
        ("mlp", [], [(500, 784)], 392_000),
    ],
)
def test_named_networks_have_the_published_shapes(name, hidden, shapes, num_weights):
    options = {} if hidden is None else {"hidden": hidden}
    network = names.load("network", names.NETWORKS, name)((28, 28), 500, **options)
    assert (network.name, network.input_shape) == (name, (28, 28))
    assert [tensor.shape for tensor in network.tensors] == shapes
    layer_names = [f"layer{i + 1}" for i in range(len(shapes))]
    assert [tensor.name for tensor in network.tensors] == layer_names
    assert [tensor.source for tensor in network.tensors] == list(network.weights(0)) == layer_names
    assert [tensor.fan_in for tensor in network.tensors] == [shape[1] for shape in shapes]
    assert num_gains(network) == num_weights
    assert network.num_outputs == 500
    assert network.num_activations == sum(shape[0] for shape in shapes)
    assert not network.normalises
    assert network.float_specs() == ()


def test_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=f"{', '.join(names.NETWORKS)}, got 'lenet5'"):
        names.load("network", names.NETWORKS, "lenet5")


@pytest.mark.parametrize("name", ["lenet_300_100", "fc_1024_1024"])
def test_hidden_widths_are_refused_beside_a_name(name):
    with pytest.raises(TypeError, match="hidden"):
        names.load("network", names.NETWORKS, name)((784,), 10, hidden=[300])


@pytest.mark.parametrize("name", ["mlp", "units"])
def test_mlp_without_hidden_widths_is_refused(name):
    with pytest.raises(TypeError, match="hidden"):
        names.load("network", names.NETWORKS, name)((784,), 10)


@pytest.mark.parametrize("widths", [(784,), (784, 0, 10), ()])
def test_widths_that_make_no_network_are_refused(widths):
    with pytest.raises(ValueError, match="two or more numbers >= 1"):
        MLP("bad", widths)


def test_widths_must_begin_with_the_input():
    with pytest.raises(ValueError, match="begin with 784, the number of input values, got 700"):
        MLP("bad", (700, 10), (28, 28))


def test_constants_are_the_magnitudes_of_the_weights(tiny):
    weights = layers_of(tiny, 0)
    assert tiny.constants == tuple(pytest.approx(float(w[0, 0].abs())) for w in weights)


def test_forward_is_relu_between_products_and_none_at_the_end(tiny, rng):
    weights = layers_of(tiny, 0)
    images = rng.standard_normal((5, 16)).astype(np.float32)
    x = images.astype(np.float64)
    for weight in weights[:-1]:
        x = np.maximum(x @ weight.numpy().T, 0)
    expected = x @ weights[-1].numpy().T
    logits = forward(weights, torch.from_numpy(images))
    assert (expected < 0).any()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_superfluous_outputs_are_outputs_like_any():
    weights = layers_of(mlp((64,), 60, hidden=[32]), 0)
    assert forward(weights, torch.ones(3, 64)).shape == (3, 60)


def test_forward_of_stacked_networks_is_each_by_itself(tiny):
    alone = [layers_of(tiny, seed) for seed in (0, 1)]
    stacked = [torch.stack(pair) for pair in zip(*alone, strict=True)]
    images = torch.linspace(-1, 1, 2 * 5 * 16).view(2, 5, 16)
    both = forward(stacked, images)
    for logits, weights, x in zip(both, alone, images, strict=True):
        torch.testing.assert_close(logits, forward(weights, x))


def test_logits_of_gains_are_those_of_the_weights_they_multiply(tiny, rng):
    weights = tiny.weights(0)
    gains = {
        tensor.name: torch.from_numpy(rng.uniform(-1, 1, (3, *tensor.shape)).astype(np.float32))
        for tensor in tiny.tensors
    }
    images = torch.from_numpy(rng.standard_normal((3, 5, 16)).astype(np.float32))
    shaped = MLP("tiny", tiny.widths, (1, 4, 4))
    shared, own = (
        network.logits(weights, gains, x)
        for network, x in [(tiny, images[0]), (shaped, images.reshape(3, 5, 1, 4, 4))]
    )
    for b in range(3):
        effective = [w * g[b] for w, g in zip(weights.values(), gains.values(), strict=True)]
        torch.testing.assert_close(shared[b], forward(effective, images[0]))
        torch.testing.assert_close(own[b], forward(effective, images[b]))
        alone = tiny.logits(weights, {n: g[b] for n, g in gains.items()}, images[b])
        torch.testing.assert_close(alone, own[b])


@pytest.mark.parametrize("init", KAIMING_INITS)
def test_distributions_of_weights_have_the_variance_of_he(init):
    (weight, *_) = mlp((50,), 400, hidden=[500], init=init).weights(0).values()
    assert weight.dtype == torch.float32
    assert float(weight.mean()) == pytest.approx(0, abs=0.01)
    assert float(weight.var()) == pytest.approx(2 / 50, rel=0.05)
    most = {"signed_constant": sqrt(2 / 50), "kaiming_uniform": sqrt(6 / 50)}
    assert float(weight.abs().max()) <= most.get(init, 1.5) * 1.000001


def test_xavier_weights_have_the_variance_of_inputs_and_outputs():
    (weight, *_) = mlp((50,), 400, hidden=[500], init="xavier_normal").weights(0).values()
    assert float(weight.mean()) == pytest.approx(0, abs=0.01)
    assert float(weight.var()) == pytest.approx(2 / (50 + 500), rel=0.05)
    kernel = MaskedTensor("conv", (400, 30, 3, 3), 30 * 9, "conv")
    (weight,) = draw_weights([kernel], 0, "xavier_normal").values()
    assert float(weight.var()) == pytest.approx(2 / (9 * (30 + 400)), rel=0.05)


def test_an_unknown_distribution_is_refused():
    with pytest.raises(ValueError, match="init must be one of signed_constant, kaiming_normal"):
        mlp((4,), 2, hidden=[3], init="zeros")
