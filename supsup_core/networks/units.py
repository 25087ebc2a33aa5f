"""Masks over units instead of weights: which hidden units of the fixed network speak.

Each hidden layer is normalised over the batch (no parameters, no running statistics),
multiplied by the gains of its units, and goes through Swish, which keeps zeros zero. A
mask is as many bits as there are hidden units, few enough for a reservoir to hold.

The normalisation takes a shift and a scale of the images away, so the first layer's drive,
which no mask changes, may be computed from whole pixels.

Source: Wortsman et al. 2020, appendix on HopSupSup, and its code.
Shape letters: B states (or none: one state), N images of a batch, P pixels, O units of a hidden
layer, S outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import torch
from jaxtyping import Float, Float32, Int8, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from supsup_core.networks.mlp import MLP, check_hidden, draw_signs, signed_constant
from supsup_core.networks.protocol import (
    Floats,
    FloatSpec,
    Gains,
    Logits,
    MaskedTensor,
    Weights,
)

# Added to the variance of the drives of normalised images, before its root.
NORM_EPSILON = 1e-5
_SHIFT = 128  # of a pixel, from 0..255 to the range of int8


@dataclass(frozen=True)
class UnitMLP:
    """An MLP whose hidden units are masked.

    Attributes:
        name: for people and tables.
        widths: units of the input, of each hidden layer, and of the output.
        input_shape: of one image.

    Raises:
        ValueError: no hidden layer, or what MLP refuses.
    """

    name: str
    widths: tuple[int, ...]
    input_shape: tuple[int, ...] = ()

    activation = "swish of normalised"
    normalises = True

    def __post_init__(self) -> None:
        if len(self.widths) < 3:
            raise ValueError(f"widths must have a hidden layer at least, got {self.widths}")
        object.__setattr__(self, "input_shape", self._layers.input_shape)

    @cached_property
    def _layers(self) -> MLP:
        return MLP(self.name, self.widths, self.input_shape)

    @cached_property
    def tensors(self) -> tuple[MaskedTensor, ...]:
        """A gain for each unit (O,) of each hidden layer."""
        return tuple(
            MaskedTensor(f"units{i}", layer.shape[:1], layer.fan_in, layer.source, over="units")
            for i, layer in enumerate(self._layers.tensors[:-1], start=1)
        )

    @property
    def num_outputs(self) -> int:
        """S."""
        return self.widths[-1]

    @property
    def num_activations(self) -> int:
        """The hidden units."""
        return sum(self.widths[1:-1])

    def weights(self, seed: int) -> dict[str, Tensor]:
        """Draw the fixed weights of all layers, those of the MLP of the same widths."""
        return self._layers.weights(seed)

    def float_specs(self) -> tuple[FloatSpec, ...]:
        """Nothing: the statistics are always those of the batch."""
        return ()

    def logits(
        self,
        weights: Weights,
        gains: Gains,
        inputs: Float[Tensor, "..."],
        floats: Floats | None = None,
        *,
        track: bool = False,
    ) -> Float[Tensor, "*B N S"]:
        """Compute logits; see Network.logits."""
        return self.on_inputs(weights, inputs)(gains)

    def on_inputs(self, weights: Weights, inputs: Float[Tensor, "..."]) -> Logits:
        """Bind inputs: the first layer's drives are computed once."""
        first, *later = (weights[layer.source] for layer in self._layers.tensors)
        images = inputs.flatten(-len(self.input_shape))
        drives = normalised(first @ images.transpose(-1, -2), NORM_EPSILON)
        masked = [tensor.name for tensor in self.tensors]
        return lambda gains: logits_of_drives(later, [gains[name] for name in masked], drives)


def normalised(drives: Float[Tensor, "*B O N"], epsilon: float) -> Float[Tensor, "*B O N"]:
    """Shift and scale to mean 0 and variance 1 over a batch."""
    centred = drives - drives.mean(dim=-1, keepdim=True)
    spread = centred.square().mean(dim=-1, keepdim=True).add_(epsilon).rsqrt_()
    return centred * spread


def logits_of_drives(
    later: Sequence[Float[Tensor, "_ _"]],
    gains: Sequence[Float[Tensor, "*B _"]],
    drives: Float[Tensor, "*C O N"],
) -> Float[Tensor, "*B N S"]:
    """Logits from the first hidden layer's drives on; all states share the matrix products.

    Args:
        later: weights behind the first layer, (O, I).
        gains: of each hidden layer's units, (O,): a mask, or what lies between masks.
        drives: of the first hidden layer, normalised; C is B, or none where all states share
            the images.
    """
    x = functional.silu(drives * gains[0].unsqueeze(-1))
    for weight, gain in zip(later[:-1], gains[1:], strict=True):
        x = functional.silu(normalised(weight @ x, NORM_EPSILON) * gain.unsqueeze(-1))
    return (later[-1] @ x).transpose(-1, -2)


class WholePixels:
    """A network of units whose first layer reads whole pixels.

    Args:
        network: the network.
        seed: the run's seed.
        std: standard deviation of the pixels as fractions of 255, which images are divided by.
        device: where the products are computed.

    Attributes:
        later: weights behind the first layer, (O, I).
        device: as given.
    """

    def __init__(self, network: UnitMLP, seed: int, std: float, device: torch.device) -> None:
        first = network.widths[:2]
        self._signs = torch.from_numpy(draw_signs(first[::-1], seed, 0)).to(device)
        self.later = [weight.to(device) for weight in list(network.weights(seed).values())[1:]]
        self.device = device
        # Of sums of pixels, whose variance is larger than that of normalised images' drives.
        self._epsilon = NORM_EPSILON * (255 * std / signed_constant(first[0])) ** 2

    def drives(
        self, pixels: UInt8[np.ndarray, "N P"], units: Int64[Tensor, " U"] | None = None
    ) -> Float32[Tensor, "_ N"]:
        """Compute the first hidden layer's drives, normalised over images as a task shows them.

        Args:
            pixels: of the images.
            units: which units, for speed; None for all.
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


def units(input_shape: Sequence[int], num_outputs: int, *, hidden: list[int]) -> UnitMLP:
    """An MLP whose hidden units are masked, and normalised over each batch.

    Args:
        input_shape: of one image.
        num_outputs: real and superfluous neurons together.
        hidden: units of each hidden layer.

    Raises:
        ValueError: no hidden layer, or a width below 1.
    """
    check_hidden(hidden)
    shape = tuple(input_shape)
    return UnitMLP("units", (prod(shape), *hidden, num_outputs), shape)
