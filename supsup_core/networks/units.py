"""Networks in which a mask has one bit per hidden unit, not one bit per weight.

The pre-activation of a hidden unit is the sum of the unit's weighted inputs. In names of this
module, pre-activations are called drives. They are normalised over the batch, without parameters or
running statistics, and multiplied by the gains of the units. Then the activation function Swish
follows, which maps 0 to 0. A mask has so few bits that a reservoir can store it.

No mask changes the pre-activations of the first hidden layer. The normalisation removes any shift
and any scale of the images. So these pre-activations can be computed from pixels that are whole
numbers.

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
from supsup_core.whole_products import whole_products

# This number is added to the variance of the pre-activations, before the square root.
NORM_EPSILON = 1e-5
_SHIFT = 128  # subtracting this number moves pixels from 0..255 to the range of int8


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
    has_constants = True

    def __post_init__(self) -> None:
        if len(self.widths) < 3:
            raise ValueError(f"widths must have at least one hidden layer, got {self.widths}")
        object.__setattr__(self, "input_shape", self._layers.input_shape)

    @cached_property
    def _layers(self) -> MLP:
        return MLP(self.name, self.widths, self.input_shape)

    @cached_property
    def tensors(self) -> tuple[MaskedTensor, ...]:
        """The masked tensors: one per hidden layer, with one gain per unit."""
        return tuple(
            MaskedTensor(f"units{i}", layer.shape[:1], layer.fan_in, layer.source, over="units")
            for i, layer in enumerate(self._layers.tensors[:-1], start=1)
        )

    @property
    def num_outputs(self) -> int:
        """S, the number of outputs: real and superfluous neurons together."""
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

    def features(
        self,
        weights: Weights,
        gains: Gains,
        inputs: Float[Tensor, "N ..."],
        floats: Floats | None = None,
    ) -> Float[Tensor, "N F"]:
        """Compute the outputs of the last hidden layer; see Network.features."""
        drives, later = self._first_drives(weights, inputs)
        masked = [gains[tensor.name] for tensor in self.tensors]
        return hidden_of_drives(later[:-1], masked, drives).transpose(-1, -2)

    def on_inputs(self, weights: Weights, inputs: Float[Tensor, "..."]) -> Logits:
        """Return a function from gains to logits; see Network.on_inputs.

        The first layer, which does not depend on the gains, is computed only once.
        """
        drives, later = self._first_drives(weights, inputs)
        masked = [tensor.name for tensor in self.tensors]
        return lambda gains: logits_of_drives(later, [gains[name] for name in masked], drives)

    def _first_drives(
        self, weights: Weights, inputs: Float[Tensor, "..."]
    ) -> tuple[Float[Tensor, "*B O N"], list[Tensor]]:
        """Return the first hidden layer's normalised drives, and the weights of later layers."""
        first, *later = (weights[layer.source] for layer in self._layers.tensors)
        images = inputs.flatten(-len(self.input_shape))
        return normalised(first @ images.transpose(-1, -2), NORM_EPSILON), later


def normalised(drives: Float[Tensor, "*B O N"], epsilon: float) -> Float[Tensor, "*B O N"]:
    """Shift and scale the pre-activations of each unit to mean 0 and variance 1 over the batch.

    Args:
        drives: (*B, O, N) the pre-activations of O units for N images.
        epsilon: a number that is added to the variance before the square root.
    """
    centred = drives - drives.mean(dim=-1, keepdim=True)
    spread = centred.square().mean(dim=-1, keepdim=True).add_(epsilon).rsqrt_()
    return centred * spread


def logits_of_drives(
    later: Sequence[Float[Tensor, "_ _"]],
    gains: Sequence[Float[Tensor, "*B _"]],
    drives: Float[Tensor, "*C O N"],
) -> Float[Tensor, "*B N S"]:
    """Compute logits (N, S) or (B, N, S) from the pre-activations of the first hidden layer.

    Args:
        later: for each layer after the first layer, the weights (outputs, inputs). All states have
            the same weights.
        gains: for each hidden layer, the gains of the units: (O,) for one state, or (B, O) for B
            states. The gains are a mask, or a weighted sum of masks.
        drives: normalised pre-activations of the first hidden layer. The shape is (O, N) if all
            states share the N images, and (B, O, N) if each state has its own N images.
    """
    return (later[-1] @ hidden_of_drives(later[:-1], gains, drives)).transpose(-1, -2)


def hidden_of_drives(
    inner: Sequence[Float[Tensor, "_ _"]],
    gains: Sequence[Float[Tensor, "*B _"]],
    drives: Float[Tensor, "*C O N"],
) -> Float[Tensor, "*B _ N"]:
    """Compute the outputs of the last hidden layer; see logits_of_drives.

    Args:
        inner: the weights (outputs, inputs) of each layer between the first and the last layer.
        gains: as for logits_of_drives.
        drives: as for logits_of_drives.
    """
    x = functional.silu(drives * gains[0].unsqueeze(-1))
    for weight, gain in zip(inner, gains[1:], strict=True):
        x = functional.silu(normalised(weight @ x, NORM_EPSILON) * gain.unsqueeze(-1))
    return x


class WholePixels:
    """The first layer of a UnitMLP, computed from pixels that are whole numbers.

    Args:
        network: the network.
        seed: the run's seed.
        std: standard deviation of the data set's pixels, divided by 255.
        device: device of the matrix products.

    Attributes:
        widths: number of units of the input, of each hidden layer, and of the output.
        signs: (O, P) signs of the weights of the first layer, +1 and -1.
        later: for each layer after the first layer, the weights (outputs, inputs).
        device: the argument `device`.
    """

    def __init__(self, network: UnitMLP, seed: int, std: float, device: torch.device) -> None:
        self.widths = network.widths
        first = network.widths[:2]
        signs = draw_signs(first[::-1], seed, 0)
        self.signs: Int8[Tensor, "O P"] = torch.from_numpy(signs).to(device)
        self.later = [weight.to(device) for weight in list(network.weights(seed).values())[1:]]
        self.device = device
        # Pre-activations that are computed from whole pixels have a larger variance than those from
        # normalised images. The epsilon is multiplied by the ratio of these variances.
        self._epsilon = NORM_EPSILON * (255 * std / signed_constant(first[0])) ** 2

    def drives(
        self, pixels: UInt8[np.ndarray, "N P"], units: Int64[Tensor, " U"] | None = None
    ) -> Float32[Tensor, "_ N"]:
        """Compute the pre-activations of the first hidden layer, normalised over the images.

        Args:
            pixels: (N, P) pixels of N images of a task, from 0 to 255.
            units: (U,) indices of the units to compute. If None, all units are computed.

        Returns:
            (U, N) normalised pre-activations of these units, or (O, N) of all O units.
        """
        signs = self.signs if units is None else self.signs[units]
        columns = torch.from_numpy(pixels).to(self.device).t()
        return self.drives_of(signed_sums(signs, columns))

    def drives_of(self, sums: Float32[Tensor, "*B _ N"]) -> Float32[Tensor, "*B _ N"]:
        """Compute the normalised pre-activations from their sums over pixels; see signed_sums."""
        return normalised(sums, self._epsilon)


def signed_sums(signs: Int8[Tensor, "O P"], pixels: UInt8[Tensor, "P N"]) -> Float32[Tensor, "O N"]:
    """Compute the sum over pixels of sign * (pixel - 128), for each unit and image.

    The sums are whole numbers below 2 ** 24, so they are exact on any device.

    Args:
        signs: (O, P) signs of the weights of O units, +1 and -1.
        pixels: (P, N) pixels of N images, from 0 to 255.

    Returns:
        (O, N) sums.
    """
    return whole_products(signs, (pixels ^ _SHIFT).view(torch.int8))


FilledHidden = Annotated[
    list[int], Knob("Number of units of each hidden layer, in order.", at_least=1, filled=True)
]


def units(input_shape: Sequence[int], num_outputs: int, *, hidden: FilledHidden) -> UnitMLP:
    """Make an MLP with masks over its hidden units. These units are normalised over each batch.

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
