"""Multilayer perceptrons with fixed random weights, which are drawn from a seed.

By default, weights are signed Kaiming constants: +c or -c with c = sqrt(2 / fan_in). To store a
network, it is enough to store its seed. There are no biases.

Shape letters: N images, I inputs and O outputs of a layer, S outputs of the network, B states.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod, sqrt
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from supsup_core.knobs import Knob, check_knobs
from supsup_core.names import INITS, SIGNED_CONSTANT, XAVIER_NORMAL
from supsup_core.networks.protocol import (
    Floats,
    FloatSpec,
    Gains,
    Logits,
    MaskedTensor,
    Weights,
)
from supsup_core.streams import Role, stream

Init = Annotated[
    str,
    Knob(
        "Distribution of the fixed weights of a layer with n inputs per unit. signed_constant: "
        "+sqrt(2/n) or -sqrt(2/n). kaiming_normal: normal with the standard deviation sqrt(2/n). "
        "kaiming_uniform: uniform between -sqrt(6/n) and +sqrt(6/n). xavier_normal: normal with "
        "the standard deviation sqrt(2/(n+m)), for m outputs per input.",
        one_of=INITS,
    ),
]


def signed_constant(fan_in: int) -> float:
    """Return the magnitude of a layer's weights: sqrt(2 / fan_in), the Kaiming value for ReLU."""
    return sqrt(2.0 / fan_in)


def draw_signs(shape: Sequence[int], seed: int, index: int) -> np.ndarray:
    """Draw the signs of a layer's weights.

    Args:
        shape: shape of the weights.
        seed: the run's seed.
        index: index of the layer; the first layer has the index 0.

    Returns:
        int8 array of the given shape: +1 and -1, each with probability 1/2.
    """
    return _signs(shape, stream(seed, Role.WEIGHTS, index))


def _signs(shape: Sequence[int], generator: np.random.Generator) -> np.ndarray:
    signs: np.ndarray = 2 * generator.integers(0, 2, size=tuple(shape), dtype=np.int8) - 1
    return signs


def draw_weights(
    tensors: Sequence[MaskedTensor], seed: int, init: str = SIGNED_CONSTANT
) -> dict[str, Tensor]:
    """Draw the fixed weights of masked tensors.

    The weights of a layer depend only on the seed, on the index of the layer, on the shape and on
    the distribution. They do not depend on tasks or on other layers. All distributions have the
    mean 0. The variance is 2 / fan_in, as in He et al. 2015 for layers before a ReLU, except for
    xavier_normal. Its variance is 2 / (fan_in + fan_out), as in Glorot & Bengio 2010.

    Args:
        tensors: masked tensors, in the order of the layers.
        seed: the run's seed.
        init: the distribution, one of INITS.

    Returns:
        A mapping from MaskedTensor.source, the name of the weights, to the weights in float32.
    """
    return {
        tensor.source: torch.from_numpy(
            draw_unscaled(tensor.shape, stream(seed, Role.WEIGHTS, i), init)
        )
        * _standard_deviation(tensor, init)
        for i, tensor in enumerate(tensors)
    }


def _standard_deviation(tensor: MaskedTensor, init: str) -> float:
    if init != XAVIER_NORMAL:
        return signed_constant(tensor.fan_in)
    fan_out = tensor.shape[0] * prod(tensor.shape[2:])  # a filter's weights count for each output
    return sqrt(2.0 / (tensor.fan_in + fan_out))


def draw_unscaled(
    shape: Sequence[int], generator: np.random.Generator, init: str
) -> Float32[np.ndarray, "..."]:
    """Draw float32 weights with the mean 0 and the variance 1.

    Args:
        shape: shape of the weights.
        generator: the source of the draws.
        init: the distribution, one of INITS.
    """
    if init == SIGNED_CONSTANT:
        return _signs(shape, generator).astype(np.float32)
    if init in ("kaiming_normal", XAVIER_NORMAL):
        drawn: np.ndarray = generator.standard_normal(tuple(shape), dtype=np.float32)
        return drawn
    if init == "kaiming_uniform":
        uniform: np.ndarray = generator.random(tuple(shape), dtype=np.float32)
        return (2 * uniform - 1) * np.float32(sqrt(3.0))
    raise ValueError(f"init must be one of {', '.join(INITS)}, got {init!r}")


@dataclass(frozen=True)
class MLP:
    """An MLP with ReLU between its layers. Tasks mask its weights.

    Attributes:
        name: the network's name, which logs and tables show.
        widths: number of units of the input, of each hidden layer, and of the output. If the output
            has more units than there are classes, the additional units are superfluous neurons.
        input_shape: shape of one image. The network reads the values of an image in C order. If the
            shape is empty, an image is a vector.
        init: distribution of the weights, one of INITS.

    Raises:
        ValueError: `widths` has fewer than two numbers or a number below 1, or the first width is
            not the number of values of an image.
    """

    name: str
    widths: tuple[int, ...]
    input_shape: tuple[int, ...] = ()
    init: str = SIGNED_CONSTANT

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
        """The masked tensors: one per layer, with one gain per weight (outputs, inputs)."""
        pairs = zip(self.widths, self.widths[1:], strict=False)
        return tuple(
            MaskedTensor(f"layer{i}", (o, n), fan_in=n, source=f"layer{i}")
            for i, (n, o) in enumerate(pairs, start=1)
        )

    @property
    def num_outputs(self) -> int:
        """S, the number of outputs: real and superfluous neurons together."""
        return self.widths[-1]

    @property
    def num_activations(self) -> int:
        """Number of units of all layers, without the input."""
        return sum(self.widths[1:])

    @property
    def has_constants(self) -> bool:
        """Whether all weights of a layer have the same magnitude, which fast forms need."""
        return self.init == SIGNED_CONSTANT

    @property
    def constants(self) -> tuple[float, ...]:
        """The magnitude of the weights of each layer, if the weights are signed constants."""
        return tuple(signed_constant(tensor.fan_in) for tensor in self.tensors)

    def weights(self, seed: int) -> dict[str, Tensor]:
        """Draw the fixed weights of all layers.

        Returns:
            A mapping from the name of each layer to its weights (O, I). If `init` is
            signed_constant, each weight is +sqrt(2 / I) or -sqrt(2 / I). O and I are the layer's
            numbers of outputs and inputs.
        """
        return draw_weights(self.tensors, seed, self.init)

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

    def features(
        self,
        weights: Weights,
        gains: Gains,
        inputs: Float[Tensor, "N ..."],
        floats: Floats | None = None,
    ) -> Float[Tensor, "N F"]:
        """Compute the activations of the last hidden layer, or return the pixels of the inputs.

        The pixels are the features if there is no hidden layer; see Network.features.
        """
        effective = [weights[tensor.source] * gains[tensor.name] for tensor in self.tensors[:-1]]
        pixels = inputs.flatten(-len(self.input_shape))
        return torch.relu(forward(effective, pixels)) if effective else pixels

    def on_inputs(self, weights: Weights, inputs: Float[Tensor, "..."]) -> Logits:
        """Return a function from gains to logits; see Network.on_inputs."""
        return lambda gains: self.logits(weights, gains, inputs)


def forward(weights: Sequence[Float[Tensor, "*B _ _"]], images: Tensor) -> Tensor:
    """Compute the logits of an MLP with ReLU between its layers.

    Args:
        weights: for each layer, the effective weights: (outputs, inputs), or
            (B, outputs, inputs) for B networks at once.
        images: (N, P), N images of P values. With B networks, (B, N, P) is also possible: each
            network then has its own images.

    Returns:
        Logits of S outputs: (N, S), or (B, N, S) for B networks.
    """
    x = images
    for i, weight in enumerate(weights):
        if i:
            x = torch.relu(x)
        x = x @ weight.transpose(-1, -2)
    return x


Hidden = Annotated[list[int], Knob("Number of units of each hidden layer, in order.", at_least=1)]


def mlp(
    input_shape: Sequence[int], num_outputs: int, *, hidden: Hidden, init: Init = SIGNED_CONSTANT
) -> MLP:
    """Make an MLP with hidden layers of any widths.

    Args:
        input_shape: shape of one image.
        num_outputs: number of real and superfluous neurons together.
        hidden: number of units of each hidden layer; an empty list gives a linear network.
        init: distribution of the weights.

    Raises:
        ValueError: a width is below 1, or `init` is unknown.
    """
    check_knobs(mlp, {"hidden": hidden, "init": init})
    return _named("mlp", input_shape, num_outputs, hidden, init)


def lenet_300_100(
    input_shape: Sequence[int], num_outputs: int, *, init: Init = SIGNED_CONSTANT
) -> MLP:
    """Make LeNet 300-100: an MLP with hidden layers of 300 and 100 units."""
    check_knobs(lenet_300_100, {"init": init})
    return _named("lenet_300_100", input_shape, num_outputs, (300, 100), init)


def fc_1024_1024(
    input_shape: Sequence[int], num_outputs: int, *, init: Init = SIGNED_CONSTANT
) -> MLP:
    """Make FC 1024-1024: an MLP with two hidden layers of 1024 units."""
    check_knobs(fc_1024_1024, {"init": init})
    return _named("fc_1024_1024", input_shape, num_outputs, (1024, 1024), init)


def _named(
    name: str, input_shape: Sequence[int], num_outputs: int, hidden: Sequence[int], init: str
) -> MLP:
    shape = tuple(input_shape)
    return MLP(name, (prod(shape), *hidden, num_outputs), shape, init)
