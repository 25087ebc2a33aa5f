"""Masks over units instead of weights: which hidden units of the fixed network speak.

Each hidden layer is normalised over the batch (no parameters, no running statistics),
multiplied by the 0/1 mask of its units, and goes through Swish, which keeps zeros zero. A
mask is as many bits as there are hidden units, few enough for a reservoir to hold.

The normalisation takes a shift and a scale of the images away, so the first layer's drive,
which no mask changes, may be computed from whole pixels.

Source: Wortsman et al. 2020, appendix on HopSupSup, and its code.
Shape letters: A masks (or none: one mask), N images of a batch, P pixels, O units of a hidden
layer, S outputs.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32, Int8, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from supsup_core.networks.mlp import Network, fixed_signs, fixed_weights

# Added to the variance of the drives of normalised images, before its root.
NORM_EPSILON = 1e-5
_SHIFT = 128  # of a pixel, from 0..255 to the range of int8


def normalised(drives: Float32[Tensor, "*A O N"], epsilon: float) -> Float32[Tensor, "*A O N"]:
    """Of mean 0 and variance 1 over a batch."""
    centred = drives - drives.mean(dim=-1, keepdim=True)
    spread = centred.square().mean(dim=-1, keepdim=True).add_(epsilon).rsqrt_()
    return centred * spread


def logits_of_drives(
    later: Sequence[Float32[Tensor, "_ _"]],
    gains: Sequence[Float32[Tensor, "*A _ _"]],
    drives: Float32[Tensor, "*B O N"],
) -> Float32[Tensor, "*A N S"]:
    """Logits from the first hidden layer's drives on; all masks share the matrix products.

    Args:
        later: weights behind the first layer, (O, I).
        gains: of each hidden layer's units, (O, 1): a mask, or what lies between masks. One
            for the outputs, which have none, may follow, (S, 0).
        drives: of the first hidden layer, normalised; B is A, or none where all masks share
            the images.
    """
    x = functional.silu(drives * gains[0])
    for weight, gain in zip(later[:-1], gains[1 : len(later)], strict=True):
        x = functional.silu(normalised(weight @ x, NORM_EPSILON) * gain)
    return (later[-1] @ x).transpose(-1, -2)


class UnitNetwork:
    """A fixed network whose first layer reads whole pixels.

    Args:
        network: whose weights follow from the seed.
        seed: of the run.
        std: of the pixels as fractions of 255, which images are divided by.
        device: where.

    Attributes:
        later: weights behind the first layer, (O, I).
        device: as given.
    """

    def __init__(self, network: Network, seed: int, std: float, device: torch.device) -> None:
        layer = network.layers[0]
        self._signs = torch.from_numpy(fixed_signs(layer, seed, 0)).to(device)
        self.later = [weight.to(device) for weight in fixed_weights(network, seed)[1:]]
        self.device = device
        # Of sums of pixels, whose variance is larger than that of normalised images' drives.
        self._epsilon = NORM_EPSILON * (255 * std / layer.constant) ** 2

    def drives(
        self, pixels: UInt8[np.ndarray, "N P"], units: Int64[Tensor, " U"] | None = None
    ) -> Float32[Tensor, "_ N"]:
        """Of the first hidden layer, normalised over images as a task shows them.

        Args:
            pixels: of the images.
            units: which, for speed; None for all.
        """
        signs = self._signs if units is None else self._signs[units]
        columns = torch.from_numpy(pixels).to(self.device).t()
        return normalised(signed_sums(signs, columns), self._epsilon)


def signed_sums(signs: Int8[Tensor, "O P"], pixels: UInt8[Tensor, "P N"]) -> Float32[Tensor, "O N"]:
    """Sums of pixels with a sign each, of which 128 is taken off first.

    All are whole numbers below 2 ** 24, and exact on any device.
    """
    if signs.device.type == "cpu" and has_integer_products():
        shifted = (pixels ^ _SHIFT).view(torch.int8)
        return torch._int_mm(signs, shifted).to(torch.float32)
    return signs.to(torch.float32) @ (pixels.to(torch.float32) - _SHIFT)


def has_integer_products() -> bool:
    """Whether the CPU has instructions for products of 8-bit integers."""
    return bool(torch.cpu.get_capabilities().get("avx512_vnni", False))
