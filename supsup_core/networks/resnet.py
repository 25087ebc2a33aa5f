"""Residual networks (He et al. 2016, arXiv:1512.03385) with fixed weights.

All convolutions, also those of the shortcuts, and the last linear layer are masked. Normalisation
layers have no parameters.

Shape letters: N images, C channels of an image, H rows, W columns, S outputs.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from supsup_core.knobs import Knob, check_knobs
from supsup_core.names import SIGNED_CONSTANT
from supsup_core.networks.conv import Norm
from supsup_core.networks.initial import DrawnModule, norm_layer
from supsup_core.networks.mlp import Init

# Images of at least this height and width get the large stem, if the stem is "auto".
LEAST_SIDE_OF_LARGE_STEM = 128

Width = Annotated[
    int, Knob("Number of channels of the first stage. Each later stage doubles it.", at_least=1)
]
Stem = Annotated[
    str,
    Knob(
        "First layers. small: a 3x3 convolution. large: a 7x7 convolution and a 3x3 maximum, each "
        "of which halves height and width. auto: large for images of "
        f"{LEAST_SIDE_OF_LARGE_STEM}x{LEAST_SIDE_OF_LARGE_STEM} pixels or more, else small.",
        one_of=("auto", "small", "large"),
    ),
]
Kind = Literal["basic", "bottleneck"]

EXPANSION = 4  # outputs of a bottleneck block per inner channel


class Block(nn.Module):
    """A residual block: relu(branch(x) + shortcut(x)).

    The branch of a basic block has two 3x3 convolutions. The branch of a bottleneck block has three
    convolutions: 1x1, 3x3 and 1x1. The first 3x3 convolution of the branch has the stride, as in
    most code that is newer than the paper. The shortcut is a 1x1 convolution if the block changes
    the shape of the images, otherwise the identity.

    Args:
        kind: "basic" or "bottleneck".
        num_in: number of channels of the inputs.
        width: number of channels between the convolutions of the branch. The output of a basic
            block has `width` channels. The output of a bottleneck block has EXPANSION * width.
        stride: 1, or 2 to halve height and width.
        norm: normalisation after each convolution; see norm_layer.
    """

    def __init__(self, kind: Kind, num_in: int, width: int, stride: int, norm: str) -> None:
        super().__init__()
        is_basic = kind == "basic"
        sizes, num_out = ((3, 3), width) if is_basic else ((1, 3, 1), EXPANSION * width)
        channels = (num_in, *[width] * (len(sizes) - 1), num_out)
        strided = sizes.index(3)
        layers: list[nn.Module] = []
        for i, (size, (before, after)) in enumerate(zip(sizes, pairwise(channels), strict=True)):
            layers += [
                _conv(before, after, size, stride if i == strided else 1),
                norm_layer(norm, after),
                nn.ReLU(inplace=True),
            ]
        self.branch = nn.Sequential(*layers[:-1])
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or num_in != num_out:
            self.shortcut = nn.Sequential(
                Subsample(stride), _conv(num_in, num_out, 1, 1), norm_layer(norm, num_out)
            )
        self.num_out = num_out

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N _ _ _"]:
        """Compute the outputs of the block."""
        return torch.relu_(self.branch(images) + self.shortcut(images))


class Subsample(nn.Module):
    """Keep every stride-th row and column.

    A 1x1 convolution with a stride gives the same result as this layer and a convolution without
    stride. But oneDNN 3.12 writes outside of its arrays when it computes the gradient of such a
    convolution's weights in the layout "channels last", at least with fewer than 8 channels.

    Args:
        stride: 1 keeps all pixels.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C _ _"]:
        """Return the kept pixels."""
        return images[:, :, :: self.stride, :: self.stride]


class ResNet(DrawnModule):
    """A residual network: a stem, four stages of blocks, the mean over pixels, a linear layer.

    The stem is the part before the first block.

    Args:
        input_shape: (C, H, W).
        num_outputs: S, the number of outputs.
        kind: the kind of the blocks.
        depths: number of blocks of each stage.
        width: the argument `width` of the blocks of the first stage. Each later stage has blocks
            that are twice as wide, and images of half the height and width.
        stem: "auto", "small" or "large".
        norm: normalisation after each convolution.
        init: distribution of the masked weights.

    Raises:
        ValueError: `input_shape` is not (C, H, W).
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        kind: Kind,
        depths: Sequence[int],
        *,
        width: int,
        stem: str,
        norm: str,
        init: str,
    ) -> None:
        super().__init__(init)
        if len(input_shape) != 3:
            raise ValueError(
                f"inputs must have shape (C, H, W) for a residual network, got {tuple(input_shape)}"
            )
        is_large = min(input_shape[1:]) >= LEAST_SIDE_OF_LARGE_STEM
        large = stem == "large" or (stem == "auto" and is_large)
        self.stem = _stem(input_shape[0], width, norm, large=large)
        blocks: list[nn.Module] = []
        num_in = width
        for stage, depth in enumerate(depths):
            for i in range(depth):
                stride = 2 if stage and not i else 1
                block = Block(kind, num_in, width * 2**stage, stride, norm)
                blocks.append(block)
                num_in = block.num_out
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(num_in, num_outputs, bias=False)

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N S"]:
        """Compute the logits of N images."""
        logits: Tensor = self.head(self.blocks(self.stem(images)).mean((2, 3)))
        return logits


def _conv(num_in: int, num_out: int, size: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(num_in, num_out, size, stride, padding=size // 2, bias=False)


def _stem(num_in: int, width: int, norm: str, *, large: bool) -> nn.Sequential:
    conv = _conv(num_in, width, 7, 2) if large else _conv(num_in, width, 3, 1)
    layers = [conv, norm_layer(norm, width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *([nn.MaxPool2d(3, 2, padding=1)] if large else []))


# Kind of the blocks, and number of blocks of each stage.
_RESNET18: tuple[Kind, Sequence[int]] = ("basic", (2, 2, 2, 2))
_RESNET50: tuple[Kind, Sequence[int]] = ("bottleneck", (3, 4, 6, 3))


def _checked(
    named: Callable[..., nn.Module],
    plan: tuple[Kind, Sequence[int]],
    input_shape: Sequence[int],
    num_outputs: int,
    options: Mapping[str, Any],
) -> nn.Module:
    """Check the options of a named network, and make the network."""
    check_knobs(named, options)
    return ResNet(input_shape, num_outputs, *plan, **options)


def resnet18_slim(
    input_shape: Sequence[int],
    num_outputs: int,
    *,
    width: Width = 20,
    stem: Stem = "auto",
    norm: Norm = "batch",
    init: Init = SIGNED_CONSTANT,
) -> nn.Module:
    """Make ResNet-18 with 20, 40, 80 and 160 channels, as used for SplitCIFAR100.

    Source: Wortsman et al. 2020, arXiv:2006.14769.

    Args:
        input_shape: (C, H, W).
        num_outputs: number of real and superfluous neurons together.
        width: number of channels of the first stage.
        stem: first layers.
        norm: normalisation after each convolution.
        init: distribution of the weights.

    Raises:
        ValueError: `input_shape` is not (C, H, W), or an option has a wrong value.
    """
    options = {"width": width, "stem": stem, "norm": norm, "init": init}
    return _checked(resnet18_slim, _RESNET18, input_shape, num_outputs, options)


def resnet18(
    input_shape: Sequence[int],
    num_outputs: int,
    *,
    width: Width = 64,
    stem: Stem = "auto",
    norm: Norm = "batch",
    init: Init = SIGNED_CONSTANT,
) -> nn.Module:
    """Make ResNet-18: eight basic blocks in four stages of 64 to 512 channels.

    Args:
        input_shape: (C, H, W).
        num_outputs: number of real and superfluous neurons together.
        width: number of channels of the first stage.
        stem: first layers.
        norm: normalisation after each convolution.
        init: distribution of the weights.

    Raises:
        ValueError: `input_shape` is not (C, H, W), or an option has a wrong value.
    """
    options = {"width": width, "stem": stem, "norm": norm, "init": init}
    return _checked(resnet18, _RESNET18, input_shape, num_outputs, options)


def resnet50(
    input_shape: Sequence[int],
    num_outputs: int,
    *,
    width: Width = 64,
    stem: Stem = "auto",
    norm: Norm = "batch",
    init: Init = SIGNED_CONSTANT,
) -> nn.Module:
    """Make ResNet-50: 16 bottleneck blocks in four stages of 256 to 2048 channels.

    Args:
        input_shape: (C, H, W).
        num_outputs: number of real and superfluous neurons together.
        width: number of channels between the convolutions of a block in the first stage.
        stem: first layers.
        norm: normalisation after each convolution.
        init: distribution of the weights.

    Raises:
        ValueError: `input_shape` is not (C, H, W), or an option has a wrong value.
    """
    options = {"width": width, "stem": stem, "norm": norm, "init": init}
    return _checked(resnet50, _RESNET50, input_shape, num_outputs, options)
