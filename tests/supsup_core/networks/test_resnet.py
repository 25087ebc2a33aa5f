from math import prod

import pytest
import torch

from supsup_core.networks.module import as_network
from supsup_core.networks.protocol import num_gains
from supsup_core.networks.resnet import resnet18, resnet18_slim, resnet50


def meta(make, *given, **options):
    with torch.device("meta"):
        return make(*given, **options)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        # The published counts of parameters for 1000 classes, without the parameters of batch
        # normalisation and without the biases of the last layer.
        (resnet18, 11_689_512 - 9_600 - 1000),
        (resnet50, 25_557_032 - 53_120 - 1000),
    ],
)
def test_weights_for_imagenet_are_as_many_as_published(make, expected):
    module = meta(make, (3, 224, 224), 1000)
    assert sum(p.numel() for p in module.parameters()) == expected


def test_the_slim_network_has_a_tenth_of_the_weights():
    module = meta(resnet18_slim, (3, 32, 32), 10)
    wide = meta(resnet18, (3, 32, 32), 10)
    share = sum(p.numel() for p in module.parameters()) / sum(p.numel() for p in wide.parameters())
    assert share == pytest.approx((20 / 64) ** 2, rel=0.01)
    assert module.head.weight.shape == (10, 160)


@pytest.mark.parametrize(
    ("stem", "side", "rows"),
    [("auto", 28, 28), ("auto", 128, 32), ("small", 128, 128), ("large", 28, 7)],
)
def test_the_stem_follows_the_size_of_the_images(stem, side, rows):
    module = meta(resnet18_slim, (1, side, side), 2, width=2, stem=stem)
    images = torch.empty(2, 1, side, side, device="meta")
    assert module.stem(images).shape == (2, 2, rows, rows)


def test_all_convolutions_and_the_head_are_masked_and_normalised_without_parameters():
    network = as_network("slim", resnet18_slim((1, 8, 8), 5, width=2), (1, 8, 8))
    assert len(network.tensors) == 1 + 8 * 2 + 3 + 1  # stem, blocks, shortcuts, head
    assert network.weights(0).keys() == {tensor.source for tensor in network.tensors}
    assert len(network.float_specs()) == 2 * 20
    assert num_gains(network) == sum(prod(t.shape) for t in network.tensors)


@pytest.mark.parametrize(
    ("make", "given", "message"),
    [
        (resnet18, {"input_shape": (28, 28)}, r"must have shape \(C, H, W\)"),
        (resnet18_slim, {"width": 0}, "width must be >= 1, got 0"),
        (resnet50, {"stem": "tiny"}, "stem must be one of auto, small, large, got tiny"),
        (resnet50, {"norm": "layer"}, "norm must be one of batch, none, got layer"),
        (resnet18, {"init": "zeros"}, "init must be one of signed_constant, kaiming_normal"),
    ],
)
def test_wrong_options_are_refused(make, given, message):
    with pytest.raises(ValueError, match=message):
        make(**{"input_shape": (1, 8, 8), "num_outputs": 2} | given)
