import numpy as np
import pytest
import torch

from supsup_core.networks.mlp import (
    NETWORKS,
    Layer,
    Network,
    fixed_signs,
    fixed_weights,
    forward,
    make_network,
)


def test_weights_are_signed_kaiming_constants():
    network = make_network("lenet_300_100", 784, 20)
    for weight, fan_in in zip(fixed_weights(network, 0), (784, 300, 100), strict=True):
        constant = torch.tensor((2 / fan_in) ** 0.5, dtype=torch.float32)
        assert torch.equal(weight.abs(), constant.expand(weight.shape))
        assert weight.dtype == torch.float32


def test_about_half_of_the_weights_are_positive():
    for weight in fixed_weights(make_network("lenet_300_100", 784, 100), 1):
        four_sigma = 2 / weight.numel() ** 0.5
        assert abs((weight > 0).double().mean().item() - 0.5) < four_sigma


def test_weights_do_not_depend_on_other_layers():
    shallow = fixed_weights(Network("a", (16, 12)), 5)
    deep = fixed_weights(Network("b", (16, 12, 8, 6)), 5)
    other_head = fixed_weights(Network("c", (16, 12, 8, 60)), 5)
    assert torch.equal(shallow[0], deep[0])
    assert torch.equal(deep[1], other_head[1])


def test_layers_of_one_shape_and_seeds_have_weights_of_their_own():
    first, second = fixed_weights(Network("square", (32, 32, 32)), 0)
    assert not torch.equal(first, second)
    assert not torch.equal(first, fixed_weights(Network("square", (32, 32, 32)), 1)[0])


def test_first_signs_are_pinned():
    assert fixed_signs(Layer("layer1", (2, 8)), seed=0, index=0).tolist() == [
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
    network = make_network(name, 784, 500, hidden)
    assert [layer.shape for layer in network.layers] == shapes
    assert [layer.name for layer in network.layers] == [f"layer{i + 1}" for i in range(len(shapes))]
    assert network.num_weights == num_weights


def test_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=f"{', '.join(NETWORKS)}, got 'lenet5'"):
        make_network("lenet5", 784, 10)


def test_hidden_widths_are_refused_beside_a_name():
    with pytest.raises(ValueError, match=r"has its own hidden widths, got \[300\]"):
        make_network("lenet_300_100", 784, 10, hidden=[300])


def test_mlp_without_hidden_widths_is_refused():
    with pytest.raises(ValueError, match="mlp needs the widths"):
        make_network("mlp", 784, 10)


@pytest.mark.parametrize("widths", [(784,), (784, 0, 10), ()])
def test_widths_that_make_no_network_are_refused(widths):
    with pytest.raises(ValueError, match="two or more numbers >= 1"):
        Network("bad", widths)


def test_forward_is_relu_between_products_and_none_at_the_end(tiny, rng):
    weights = fixed_weights(tiny, 0)
    images = rng.standard_normal((5, 16)).astype(np.float32)
    x = images.astype(np.float64)
    for weight in weights[:-1]:
        x = np.maximum(x @ weight.numpy().T, 0)
    expected = x @ weights[-1].numpy().T
    logits = forward(weights, torch.from_numpy(images))
    assert (expected < 0).any()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_superfluous_outputs_are_outputs_like_any():
    weights = fixed_weights(make_network("mlp", 64, 60, hidden=[32]), 0)
    assert forward(weights, torch.ones(3, 64)).shape == (3, 60)


def test_forward_of_stacked_networks_is_each_by_itself(tiny):
    alone = [fixed_weights(tiny, seed) for seed in (0, 1)]
    stacked = [torch.stack(pair) for pair in zip(*alone, strict=True)]
    images = torch.linspace(-1, 1, 2 * 5 * 16).view(2, 5, 16)
    both = forward(stacked, images)
    for logits, weights, x in zip(both, alone, images, strict=True):
        torch.testing.assert_close(logits, forward(weights, x))
