"""Multilayer perceptrons with fixed random weights, which are drawn from a seed.

Weights are signed Kaiming constants: +c or -c with c = sqrt(2 / fan_in). To store a network, it
is enough to store its seed. There are no biases.

Shape letters: N images, I inputs and O outputs of a layer, S outputs of the network, B states.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod, sqrt
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from supsup_core.knobs import Knob, check_knobs
from supsup_core.networks.protocol import (
    Floats,
    FloatSpec,
    Gains,
    Logits,
    MaskedTensor,
    Weights,
)
from supsup_core.streams import Role, stream


def signed_constant(fan_in: int) -> float:
    """Return the magnitude of a layer's weights: the ReLU gain sqrt(2) over sqrt(fan_in)."""
    return sqrt(2.0 / fan_in)


def draw_signs(shape: Sequence[int], seed: int, index: int) -> np.ndarray:
    """Draw the signs of a layer's weights.

    Args:
        shape: shape of the weights.
        seed: the run's seed.
        index: number of the layer; the first layer has the number 0.

    Returns:
        int8 array of the given shape: +1 and -1, each with probability 1/2.
    """
    bits = stream(seed, Role.WEIGHTS, index).integers(0, 2, size=tuple(shape), dtype=np.int8)
    signs: np.ndarray = 2 * bits - 1
    return signs


def draw_weights(tensors: Sequence[MaskedTensor], seed: int) -> dict[str, Tensor]:
    """Draw the fixed weights of masked tensors.

    The weights of a layer depend only on the seed, the index of the layer and the shape. They do
    not depend on tasks or on other layers.

    Args:
        tensors: masked tensors, in the order of the layers; the index of a layer counts from 0.
        seed: the run's seed.

    Returns:
        float32 weights, by the source of the masked tensor.
    """
    return {
        tensor.source: torch.from_numpy(draw_signs(tensor.shape, seed, i)).to(torch.float32)
        * signed_constant(tensor.fan_in)
        for i, tensor in enumerate(tensors)
    }


@dataclass(frozen=True)
class MLP:
    """An MLP with ReLU between its layers. Tasks mask its weights.

    Attributes:
        name: the network's name, which logs and tables show.
        widths: number of units of the input, of each hidden layer, and of the output. The output
            may have more units than there are classes; these are superfluous neurons.
        input_shape: shape of one image. The network reads the values of an image in C order.

    Raises:
        ValueError: `widths` has fewer than two numbers or a number below 1, or the first width is
            not the number of values of an image.
    """

    name: str
    widths: tuple[int, ...]
    input_shape: tuple[int, ...] = ()

    activation = "relu"
    normalises = False

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or any(width < 1 for width in self.widths):
            raise ValueError(
                f"widths must be two or more numbers >= 1, from input to output, got {self.widths}"
            )
        if not self.input_shape:
            object.__setattr__(self, "input_shape", (self.widths[0],))
        if prod(self.input_shape) != self.widths[0]:
            raise ValueError(
                f"widths must begin with {prod(self.input_shape)}, the number of input values, got "
                f"{self.widths[0]}"
            )

    @cached_property
    def tensors(self) -> tuple[MaskedTensor, ...]:
        """The masked tensors: one tensor of gains (O, I) per layer."""
        pairs = zip(self.widths, self.widths[1:], strict=False)
        return tuple(
            MaskedTensor(f"layer{i}", (o, n), fan_in=n, source=f"layer{i}")
            for i, (n, o) in enumerate(pairs, start=1)
        )

    @property
    def num_outputs(self) -> int:
        """S, the number of real and superfluous neurons together."""
        return self.widths[-1]

    @property
    def num_activations(self) -> int:
        """Number of units of all layers, without the input."""
        return sum(self.widths[1:])

    @property
    def constants(self) -> tuple[float, ...]:
        """The magnitude of the weights of each layer, from input to output."""
        return tuple(signed_constant(tensor.fan_in) for tensor in self.tensors)

    def weights(self, seed: int) -> dict[str, Tensor]:
        """Draw the fixed weights: (O, I) per layer, each +sqrt(2 / I) or -sqrt(2 / I)."""
        return draw_weights(self.tensors, seed)

    def float_specs(self) -> tuple[FloatSpec, ...]:
        """Return an empty tuple, because a task stores no floats of this network."""
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
        effective = [weights[tensor.source] * gains[tensor.name] for tensor in self.tensors]
        return forward(effective, inputs.flatten(-len(self.input_shape)))

    def on_inputs(self, weights: Weights, inputs: Float[Tensor, "..."]) -> Logits:
        """Return a function from gains to logits; see Network.on_inputs."""
        return lambda gains: self.logits(weights, gains, inputs)


def forward(weights: Sequence[Float[Tensor, "*B _ _"]], images: Tensor) -> Tensor:
    """Compute the logits of an MLP with ReLU between its layers.

    Args:
        weights: effective weights of each layer: (O, I), or (B, O, I) for B networks at once.
        images: (N, I); with batched weights also (B, N, I), if each network has its own images.

    Returns:
        Logits (N, S), or (B, N, S) for B networks.
    """
    x = images
    for i, weight in enumerate(weights):
        if i:
            x = torch.relu(x)
        x = x @ weight.transpose(-1, -2)
    return x


Hidden = Annotated[list[int], Knob("Number of units of each hidden layer, in order.", at_least=1)]


def mlp(input_shape: Sequence[int], num_outputs: int, *, hidden: Hidden) -> MLP:
    """Make an MLP with hidden layers of any widths.

    Args:
        input_shape: shape of one image.
        num_outputs: number of real and superfluous neurons together.
        hidden: number of units of each hidden layer; an empty list gives a linear network.

    Raises:
        ValueError: a width is below 1.
    """
    check_knobs(mlp, {"hidden": hidden})
    return _named("mlp", input_shape, num_outputs, hidden)


def lenet_300_100(input_shape: Sequence[int], num_outputs: int) -> MLP:
    """Make LeNet 300-100: an MLP with hidden layers of 300 and 100 units."""
    return _named("lenet_300_100", input_shape, num_outputs, (300, 100))


def fc_1024_1024(input_shape: Sequence[int], num_outputs: int) -> MLP:
    """Make FC 1024-1024: an MLP with two hidden layers of 1024 units."""
    return _named("fc_1024_1024", input_shape, num_outputs, (1024, 1024))


def _named(name: str, input_shape: Sequence[int], num_outputs: int, hidden: Sequence[int]) -> MLP:
    shape = tuple(input_shape)
    return MLP(name, (prod(shape), *hidden, num_outputs), shape)
