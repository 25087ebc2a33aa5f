"""Multilayer perceptrons whose weights follow from a seed.

Weights are signed Kaiming constants: +c or -c with c = sqrt(2 / fan_in), so a
network costs its seed alone. There are no biases. Shape letters: N images,
I and O inputs and outputs of a layer, S outputs of the network, B states.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod, sqrt

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

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
    """The magnitude of every weight of a layer: the ReLU gain sqrt(2) over sqrt(fan_in)."""
    return sqrt(2.0 / fan_in)


def draw_signs(shape: Sequence[int], seed: int, index: int) -> np.ndarray:
    """Draw the signs of a layer's weights.

    Args:
        shape: of the weights.
        seed: the run's seed.
        index: the layer's number, 0 for the first.

    Returns:
        int8 of +1 and -1, each with probability 1/2.
    """
    bits = stream(seed, Role.WEIGHTS, index).integers(0, 2, size=tuple(shape), dtype=np.int8)
    signs: np.ndarray = 2 * bits - 1
    return signs


def draw_weights(tensors: Sequence[MaskedTensor], seed: int) -> dict[str, Tensor]:
    """Draw the fixed weights that some tensors mask, float32 by source.

    A layer's weights depend on seed, layer index and shape alone: not on tasks, nor on
    other layers.
    """
    return {
        tensor.source: torch.from_numpy(draw_signs(tensor.shape, seed, i)).to(torch.float32)
        * signed_constant(tensor.fan_in)
        for i, tensor in enumerate(tensors)
    }


@dataclass(frozen=True)
class MLP:
    """An MLP with ReLU between its layers, whose weights are masked.

    Attributes:
        name: for people and tables.
        widths: units of the input, of each hidden layer, and of the output; the
            output may have more units than there are classes (superfluous neurons).
        input_shape: of one image; its values are read in C order.

    Raises:
        ValueError: widths that are no network, or an input of another size than the first.
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
                f"widths must begin with the {prod(self.input_shape)} values of an input, got "
                f"{self.widths[0]}"
            )

    @cached_property
    def tensors(self) -> tuple[MaskedTensor, ...]:
        """A tensor of gains for the weights (O, I) of each layer."""
        pairs = zip(self.widths, self.widths[1:], strict=False)
        return tuple(
            MaskedTensor(f"layer{i}", (o, n), fan_in=n, source=f"layer{i}")
            for i, (n, o) in enumerate(pairs, start=1)
        )

    @property
    def num_outputs(self) -> int:
        """S."""
        return self.widths[-1]

    @property
    def num_activations(self) -> int:
        """The units of all layers."""
        return sum(self.widths[1:])

    @property
    def constants(self) -> tuple[float, ...]:
        """The magnitude of the weights of each layer."""
        return tuple(signed_constant(tensor.fan_in) for tensor in self.tensors)

    def weights(self, seed: int) -> dict[str, Tensor]:
        """Draw the fixed weights, (O, I) of each layer: +-sqrt(2 / I)."""
        return draw_weights(self.tensors, seed)

    def float_specs(self) -> tuple[FloatSpec, ...]:
        """Nothing: a task stores gains alone."""
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
        """Bind inputs; see Network.on_inputs."""
        return lambda gains: self.logits(weights, gains, inputs)


def forward(weights: Sequence[Float[Tensor, "*B _ _"]], images: Tensor) -> Tensor:
    """Logits of an MLP with ReLU between the layers.

    Args:
        weights: effective, (O, I) each, or (B, O, I) for B networks at once.
        images: (N, I), or (B, N, I) beside batched weights.

    Returns:
        (N, S), or (B, N, S).
    """
    x = images
    for i, weight in enumerate(weights):
        if i:
            x = torch.relu(x)
        x = x @ weight.transpose(-1, -2)
    return x


def check_hidden(hidden: Sequence[int]) -> None:
    """Refuse widths that are no hidden layers.

    Raises:
        ValueError: naming them.
    """
    if any(width < 1 for width in hidden):
        raise ValueError(f"hidden must be widths >= 1, got {list(hidden)}")


def mlp(input_shape: Sequence[int], num_outputs: int, *, hidden: list[int]) -> MLP:
    """An MLP with hidden layers of any widths.

    Args:
        input_shape: of one image.
        num_outputs: real and superfluous neurons together.
        hidden: units of each hidden layer; [] for a linear network.

    Raises:
        ValueError: a width below 1.
    """
    check_hidden(hidden)
    return _named("mlp", input_shape, num_outputs, hidden)


def lenet_300_100(input_shape: Sequence[int], num_outputs: int) -> MLP:
    """LeNet 300-100: two hidden layers."""
    return _named("lenet_300_100", input_shape, num_outputs, (300, 100))


def fc_1024_1024(input_shape: Sequence[int], num_outputs: int) -> MLP:
    """FC 1024-1024: two hidden layers."""
    return _named("fc_1024_1024", input_shape, num_outputs, (1024, 1024))


def _named(name: str, input_shape: Sequence[int], num_outputs: int, hidden: Sequence[int]) -> MLP:
    shape = tuple(input_shape)
    return MLP(name, (prod(shape), *hidden, num_outputs), shape)
