import pytest
import torch

from supsup_core.networks.conv import conv4, conv6, small_conv
from supsup_core.networks.module import as_network


def test_conv6_has_six_convolutions_and_three_linear_layers():
    with torch.device("meta"):
        module = conv6((3, 32, 32), 10)
    channels = [(64, 3), (64, 64), (128, 64), (128, 128), (256, 128), (256, 256)]
    convolutions = [(*pair, 3, 3) for pair in channels]
    linear = [(256, 256 * 4 * 4), (256, 256), (10, 256)]
    assert [tuple(p.shape) for p in module.parameters()] == convolutions + linear


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_normalisation_can_be_left_out(norm):
    network = as_network("conv4", conv4((1, 4, 4), 3, norm=norm), (1, 4, 4))
    assert network.normalises == bool(network.float_specs()) == (norm == "batch")


@pytest.mark.parametrize("make", [small_conv, conv4])
def test_the_option_init_reaches_the_weights(make):
    def drawn(init):
        return as_network("conv", make((1, 4, 4), 3, init=init), (1, 4, 4)).weights(0)

    constant, normal = drawn("signed_constant"), drawn("kaiming_normal")
    assert constant.keys() == normal.keys()
    for name, weight in constant.items():
        assert len(weight.abs().unique()) == 1
        assert len(normal[name].abs().unique()) > 1


@pytest.mark.parametrize(("make", "side"), [(conv4, 3), (conv6, 7)])
def test_images_that_are_too_small_are_refused(make, side):
    with pytest.raises(ValueError, match=f"H and W >= {side + 1} for {make.__name__}"):
        make((1, side, side), 2)
