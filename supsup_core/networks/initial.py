"""Modules that say from which distribution their masked weights are drawn."""

from collections.abc import Mapping

from torch import Tensor, nn

from supsup_core.names import SIGNED_CONSTANT


class DrawnModule(nn.Module):
    """A module whose attribute `init` names the distribution of its masked weights, for as_network.

    Args:
        init: the distribution, one of INITS.
    """

    def __init__(self, init: str = SIGNED_CONSTANT) -> None:
        super().__init__()
        self.init = init


class Layers(DrawnModule):
    """Named layers that run one after another.

    Args:
        layers: a mapping from name to layer, in the order of the layers.
        init: the distribution of the masked weights, one of INITS.
    """

    def __init__(self, layers: Mapping[str, nn.Module], init: str = SIGNED_CONSTANT) -> None:
        super().__init__(init)
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the output of the last layer."""
        for layer in self.children():
            images = layer(images)
        return images


def norm_layer(norm: str, channels: int) -> nn.Module:
    """Make a layer that normalises images over the batch, or that does nothing.

    The layer has no parameters: gains and shifts that do not depend on the task would be useless,
    because the masked weights that follow are fixed.

    Args:
        norm: "batch" or "none".
        channels: number of channels of the images.
    """
    return nn.BatchNorm2d(channels, affine=False) if norm == "batch" else nn.Identity()
