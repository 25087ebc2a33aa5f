"""Small convolutional networks."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn


def small_conv(
    input_shape: Sequence[int], num_outputs: int, channels: Sequence[int] = (16, 32)
) -> nn.Module:
    """Make a stack of convolutions that halves the image each time, and a linear layer.

    Each block is a 3x3 convolution, a 2x2 maximum, batch normalisation without parameters, and
    ReLU. Eight two-class splits of Fashion-MNIST, one seed, 300 steps of the threshold rule gave
    a mean accuracy of 0.960. With the maximum behind the ReLU it was 0.961, at 1.6 times the
    time of a step. With the linear layer on averages over the image it was 0.874.

    Args:
        input_shape: (C, H, W); H and W must be at least 2 to the number of blocks.
        num_outputs: outputs, with and without a class.
        channels: of each block.

    Raises:
        ValueError: an input that is not (C, H, W) or too small, no block, or a width below 1.
    """
    if any(width < 1 for width in channels):
        raise ValueError(f"channels must be widths >= 1, got {list(channels)}")
    side = 2 ** len(channels)
    if not channels or len(input_shape) != 3 or min(input_shape[1:]) < side:
        raise ValueError(
            f"small_conv of {len(channels)} blocks needs inputs (C, H, W), H and W >= {side}, "
            f"and a block at least, got {tuple(input_shape)}"
        )
    layers: dict[str, nn.Module] = {}
    widths = (input_shape[0], *channels)
    for i, (num_in, num_out) in enumerate(zip(widths, channels, strict=False), start=1):
        layers[f"conv{i}"] = nn.Conv2d(num_in, num_out, 3, padding=1, bias=False)
        layers[f"pool{i}"] = nn.MaxPool2d(2)
        layers[f"norm{i}"] = nn.BatchNorm2d(num_out, affine=False)
        layers[f"relu{i}"] = nn.ReLU()
    height, width = (size // side for size in input_shape[1:])
    layers["flat"] = nn.Flatten()
    layers["linear"] = nn.Linear(channels[-1] * height * width, num_outputs, bias=False)
    return nn.Sequential(OrderedDict(layers))
