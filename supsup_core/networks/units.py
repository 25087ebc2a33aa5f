"""Networks whose masks are over hidden units, not over weights.

The drives of a hidden layer are the sums of its weighted inputs. They are normalised over the
batch (without parameters or running statistics), multiplied by the gains of the units, and passed
through Swish, which maps 0 to 0. A mask has one bit per hidden unit. These are few enough bits
for a reservoir.

The normalisation removes any shift and scale of the images. No mask changes the drives of the
first layer. These drives can therefore be computed from pixels that are whole numbers.

Source: Wortsman et al. 2020, appendix on HopSupSup, and the authors' code.
Shape letters: B states (no such axis for one state), N images of a batch, P pixels, O units of a
hidden layer, U chosen units of the first hidden layer, S outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float, Float32, Int8, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from supsup_core.knobs import Knob, check_knobs
from supsup_core.networks.mlp import MLP, draw_signs, signed_constant
from supsup_core.networks.protocol import (
    Floats,
    FloatSpec,
    Gains,
    Logits,
    MaskedTensor,
    Weights,
)

# This number is added to the variance of the drives of normalised images, before the square root.
NORM_EPSILON = 1e-5
_SHIFT = 128  # subtracted from a pixel, it moves 0..255 to the range of int8


@dataclass(frozen=True)
class UnitMLP:
    """An MLP whose hidden units are masked.

    Attributes:
        name: the network's name, which logs and tables show.
        widths: number of units of the input, of each hidden layer, and of the output.
        input_shape: shape of one image.

    Raises:
        ValueError: there is no hidden layer, or MLP refuses the widths or the shape.
    """

    name: str
    widths: tuple[int, ...]
    input_shape: tuple[int, ...] = ()

    activation = "swish of normalised"
    normalises = True

    def __post_init__(self) -> None:
        if len(self.widths) < 3:
            raise ValueError(f"widths must have at least one hidden layer, got {self.widths}")
        object.__setattr__(self, "input_shape", self._layers.input_shape)

    @cached_property
    def _layers(self) -> MLP:
        return MLP(self.name, self.widths, self.input_shape)

    @cached_property
    def tensors(self) -> tuple[MaskedTensor, ...]:
        """The masked tensors: one tensor of gains (O,) per hidden layer."""
        return tuple(
            MaskedTensor(f"units{i}", layer.shape[:1], layer.fan_in, layer.source, over="units")
            for i, layer in enumerate(self._layers.tensors[:-1], start=1)
        )

    @property
    def num_outputs(self) -> int:
        """S, the number of real and superfluous neurons together."""
        return self.widths[-1]

    @property
    def num_activations(self) -> int:
        """Number of hidden units."""
        return sum(self.widths[1:-1])

    def weights(self, seed: int) -> dict[str, Tensor]:
        """Draw the fixed weights of all layers. An MLP of the same widths has the same weights."""
        return self._layers.weights(seed)

    def float_specs(self) -> tuple[FloatSpec, ...]:
        """Return an empty tuple: the network always normalises with statistics of the batch."""
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
        """Return a function from gains to logits; the drives of layer 1 are computed once."""
        first, *later = (weights[layer.source] for layer in self._layers.tensors)
        images = inputs.flatten(-len(self.input_shape))
        drives = normalised(first @ images.transpose(-1, -2), NORM_EPSILON)
        masked = [tensor.name for tensor in self.tensors]
        return lambda gains: logits_of_drives(later, [gains[name] for name in masked], drives)


def normalised(drives: Float[Tensor, "*B O N"], epsilon: float) -> Float[Tensor, "*B O N"]:
    """Shift and scale the drives of each unit to mean 0 and variance 1 over the batch.

    Args:
        drives: drives of the units for N images.
        epsilon: number that is added to the variance before the square root.
    """
    centred = drives - drives.mean(dim=-1, keepdim=True)
    spread = centred.square().mean(dim=-1, keepdim=True).add_(epsilon).rsqrt_()
    return centred * spread


def logits_of_drives(
    later: Sequence[Float[Tensor, "_ _"]],
    gains: Sequence[Float[Tensor, "*B _"]],
    drives: Float[Tensor, "*C O N"],
) -> Float[Tensor, "*B N S"]:
    """Compute logits from the drives of the first hidden layer.

    All states share the matrix products, because all states have the same weights.

    Args:
        later: weights of all layers after the first layer, (O, I) each.
        gains: gains of each hidden layer's units, (O,) or (B, O): a mask, or a weighted sum of
            masks.
        drives: normalised drives of the first hidden layer. The axis C is B; it is missing if all
            states share the images.
    """
    x = functional.silu(drives * gains[0].unsqueeze(-1))
    for weight, gain in zip(later[:-1], gains[1:], strict=True):
        x = functional.silu(normalised(weight @ x, NORM_EPSILON) * gain.unsqueeze(-1))
    return (later[-1] @ x).transpose(-1, -2)


class WholePixels:
    """The first layer of a UnitMLP, computed from pixels that are whole numbers.

    Args:
        network: the network.
        seed: the run's seed.
        std: standard deviation of the data set's pixels, as a fraction of 255. Normalised images
            are divided by it.
        device: device of the matrix products.

    Attributes:
        later: weights of all layers after the first layer, (O, I) each.
        device: the argument `device`.
    """

    def __init__(self, network: UnitMLP, seed: int, std: float, device: torch.device) -> None:
        first = network.widths[:2]
        self._signs = torch.from_numpy(draw_signs(first[::-1], seed, 0)).to(device)
        self.later = [weight.to(device) for weight in list(network.weights(seed).values())[1:]]
        self.device = device
        # The drives of whole pixels have a larger variance than the drives of normalised images.
        # The epsilon grows by the same factor.
        self._epsilon = NORM_EPSILON * (255 * std / signed_constant(first[0])) ** 2

    def drives(
        self, pixels: UInt8[np.ndarray, "N P"], units: Int64[Tensor, " U"] | None = None
    ) -> Float32[Tensor, "_ N"]:
        """Compute the drives of the first hidden layer, normalised over the images.

        Args:
            pixels: pixels of the images of a task.
            units: indices of the units to compute; None: all units. Fewer units take less time.

        Returns:
            Drives (U, N); (O, N) if `units` is None.
        """
        signs = self._signs if units is None else self._signs[units]
        columns = torch.from_numpy(pixels).to(self.device).t()
        return normalised(signed_sums(signs, columns), self._epsilon)


def signed_sums(signs: Int8[Tensor, "O P"], pixels: UInt8[Tensor, "P N"]) -> Float32[Tensor, "O N"]:
    """Subtract 128 from each pixel, then add up the pixels with the signs of each unit.

    The sums are whole numbers below 2 ** 24, so float32 is exact on any device. If the CPU has
    products of 8-bit integers, the sums are computed with these.

    Returns:
        The sum of sign * (pixel - 128) for each unit and image.
    """
    if signs.device.type == "cpu" and has_integer_products():
        shifted = (pixels ^ _SHIFT).view(torch.int8)
        return torch._int_mm(signs, shifted).to(torch.float32)
    return signs.to(torch.float32) @ (pixels.to(torch.float32) - _SHIFT)


def has_integer_products() -> bool:
    """Return whether the CPU has instructions for products of 8-bit integers."""
    return bool(torch.cpu.get_capabilities().get("avx512_vnni", False))


FilledHidden = Annotated[
    list[int], Knob("Number of units of each hidden layer, in order.", at_least=1, filled=True)
]


def units(input_shape: Sequence[int], num_outputs: int, *, hidden: FilledHidden) -> UnitMLP:
    """Make an MLP whose hidden units are masked and normalised over each batch.

    Args:
        input_shape: shape of one image.
        num_outputs: number of real and superfluous neurons together.
        hidden: number of units of each hidden layer.

    Raises:
        ValueError: there is no hidden layer, or a width is below 1.
    """
    check_knobs(units, {"hidden": hidden})
    shape = tuple(input_shape)
    return UnitMLP("units", (prod(shape), *hidden, num_outputs), shape)
