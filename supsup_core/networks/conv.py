"""A small convolutional network."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated

from torch import nn

from supsup_core.knobs import Knob, check_knobs

Channels = Annotated[
    Sequence[int],
    Knob(
        "Number of channels of each block, in order. Each block halves height and width.",
        at_least=1,
        filled=True,
    ),
]


def small_conv(
    input_shape: Sequence[int], num_outputs: int, channels: Channels = (16, 32)
) -> nn.Module:
    """Make a network of convolutional blocks and one linear layer.

    Each block is a 3x3 convolution, a 2x2 maximum, batch normalisation without parameters, and
    ReLU. A block halves the height and the width of the image.

    This order of layers was compared with two others, on eight two-class splits of Fashion-MNIST,
    with one seed and 300 steps of the threshold rule. The mean accuracy of this order was 0.960.
    With the maximum after the ReLU, it was 0.961, but a step took 1.6 times as long. With an
    average over the image before the linear layer, it was 0.874.

    Args:
        input_shape: (C, H, W), the image's number of channels, height and width. H and W must be at
            least 2 ** (number of blocks).
        num_outputs: number of real and superfluous neurons together.
        channels: number of channels of each block.

    Raises:
        ValueError: `input_shape` is not (C, H, W), the image is too small, there is no block, or a
            block has no channel.
    """
    check_knobs(small_conv, {"channels": channels})
    side = 2 ** len(channels)
    if len(input_shape) != 3 or min(input_shape[1:]) < side:
        raise ValueError(
            f"inputs must have shape (C, H, W) with H and W >= {side} for small_conv of "
            f"{len(channels)} blocks, got {tuple(input_shape)}"
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
