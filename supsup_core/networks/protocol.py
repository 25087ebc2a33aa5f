"""What a network has to say: which tensors are masked, and logits as a function of their gains.

The state of a task gives a gain for every masked tensor. A gain over weights multiplies a tensor
of weights element by element; a gain over units multiplies the units of a layer.

Shape letters: B states side by side, N inputs, S outputs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

Weights = Mapping[str, Tensor]  # by source
Gains = Mapping[str, Tensor]  # by the name of the masked tensor
Floats = Mapping[str, Tensor]  # by the name of the FloatSpec
Logits = Callable[[Gains], Tensor]  # of inputs at hand, by batch statistics: (*B, N, S)


@dataclass(frozen=True)
class MaskedTensor:
    """A tensor of gains, one for each of some weights or units.

    Attributes:
        name: of the tensor of gains.
        shape: of the gains.
        fan_in: inputs that a unit of its layer sums over.
        source: the weights that it multiplies; several tensors may share one.
        over: what a gain multiplies: one weight, or all that a unit sends.
    """

    name: str
    shape: tuple[int, ...]
    fan_in: int
    source: str
    over: Literal["weights", "units"] = "weights"

    @property
    def num_gains(self) -> int:
        """Number of gains of the tensor."""
        return prod(self.shape)


@dataclass(frozen=True)
class FloatSpec:
    """A small array of float32 that is stored with each task.

    Attributes:
        name: of the array.
        role: how it acts: "scale" multiplies the gains of `tensor`; "statistic" is a running mean
            or variance of a normalisation; "head" is a layer of the task's own; "factor" is a
            factor of a rank-one gain.
        shape: of the array.
        initial: value of all its elements before training.
        tensor: the masked tensor that a scale belongs to.
    """

    name: str
    role: Literal["scale", "statistic", "head", "factor"]
    shape: tuple[int, ...]
    initial: float = 0.0
    tensor: str | None = None


@runtime_checkable  # so that the tests can check annotations
class Network(Protocol):
    """A fixed network, whose weights follow from a seed."""

    @property
    def name(self) -> str:
        """A name for people and tables."""
        ...

    @property
    def activation(self) -> str:
        """What follows a hidden layer, for people who read the masks."""
        ...

    @property
    def tensors(self) -> tuple[MaskedTensor, ...]:
        """The masked tensors, from input to output."""
        ...

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        ...

    @property
    def num_outputs(self) -> int:
        """S, real and superfluous neurons together."""
        ...

    @property
    def normalises(self) -> bool:
        """Whether logits without a task's own statistics depend on the whole batch."""
        ...

    @property
    def num_activations(self) -> int:
        """How many numbers a forward pass of one input keeps for the backward pass."""
        ...

    def weights(self, seed: int) -> dict[str, Tensor]:
        """Draw the fixed weights, float32 by source, from streams of the seed."""
        ...

    def float_specs(self) -> tuple[FloatSpec, ...]:
        """List what a task stores besides gains; () for most networks."""
        ...

    def logits(
        self,
        weights: Weights,
        gains: Gains,
        inputs: Float[Tensor, "..."],
        floats: Floats | None = None,
        *,
        track: bool = False,
    ) -> Float[Tensor, "*B N S"]:
        """Compute logits of inputs, differentiable in the gains.

        Args:
            weights: fixed, by source.
            gains: by masked tensor, each of the tensor's shape, or (B, *shape) for B states.
            inputs: normalised, (N, *input_shape), shared by all states; or (B, N, *input_shape).
            floats: the statistics of each task, batched as the gains; None: those of the batch.
            track: use the statistics of the batch, and move `floats` towards them in place, as
                batch normalisation does while it trains.
        """
        ...

    def on_inputs(self, weights: Weights, inputs: Float[Tensor, "..."]) -> Logits:
        """Bind inputs to logits without floats: what no gain changes is computed once."""
        ...


def num_gains(network: Network) -> int:
    """Number of gains of all masked tensors."""
    return sum(tensor.num_gains for tensor in network.tensors)
