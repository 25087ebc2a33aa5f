"""The protocol of a network: it lists its masked tensors, and computes logits from their gains.

The state of a task gives one tensor of gains for each masked tensor. Gains over weights multiply a
tensor of weights element by element. Gains over units multiply the outputs of a layer's units.

Shape letters: B states that are computed together, N inputs, S outputs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

Weights = Mapping[str, Tensor]  # name of a tensor of weights (MaskedTensor.source) -> weights
Gains = Mapping[str, Tensor]  # name of a masked tensor -> gains
Floats = Mapping[str, Tensor]  # name of an array of floats (FloatSpec.name) -> values
# A function from gains to the logits (*B, N, S) of fixed inputs. If the network normalises, it uses
# the statistics of these inputs.
Logits = Callable[[Gains], Tensor]


@dataclass(frozen=True)
class MaskedTensor:
    """A tensor of gains: one gain for each weight of a tensor, or for each unit of a layer.

    Attributes:
        name: name of the tensor of gains.
        shape: shape of the tensor of gains.
        fan_in: number of inputs of each unit of the layer.
        source: name of the layer's tensor of weights. Several masked tensors may have the same
            source.
        over: "weights": each gain multiplies one weight. "units": each gain multiplies the output
            of one unit.
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
    """The description of a small array of float32. Each task stores its own values of this array.

    Attributes:
        name: name of the array.
        role: purpose of the array. "scale": the array multiplies the gains of the masked tensor
            `tensor`. "statistic": the array is a running mean or variance of a normalisation.
            "head": the array is the gain of `tensor`, so the task has its own weights for this
            tensor. "factor": the gain of `tensor` is an outer product of two vectors. The first
            array with this role has a value for each output, the second for each input.
        shape: shape of the array.
        initial: value of all elements before training.
        tensor: name of the masked tensor. None for the role "statistic".
    """

    name: str
    role: Literal["scale", "statistic", "head", "factor"]
    shape: tuple[int, ...]
    initial: float = 0.0
    tensor: str | None = None


@runtime_checkable  # lets tests check annotations at run time
class Network(Protocol):
    """A fixed network. Its weights depend on a seed only."""

    @property
    def name(self) -> str:
        """The network's name, which logs and tables show."""
        ...

    @property
    def activation(self) -> str:
        """The name of the activation function of the hidden layers, as information for users."""
        ...

    @property
    def tensors(self) -> tuple[MaskedTensor, ...]:
        """The masked tensors, from input to output."""
        ...

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        ...

    @property
    def num_outputs(self) -> int:
        """S, the number of outputs: real and superfluous neurons together."""
        ...

    @property
    def normalises(self) -> bool:
        """Whether the logits of one input depend on the other inputs of the batch.

        This is for calls of `logits` without the argument `floats`.
        """
        ...

    @property
    def has_constants(self) -> bool:
        """Whether all fixed weights of a masked tensor have the same magnitude."""
        ...

    @property
    def num_activations(self) -> int:
        """Number of values that a forward pass of one input keeps for the backward pass."""
        ...

    def weights(self, seed: int) -> dict[str, Tensor]:
        """Draw the fixed weights from the seed.

        Returns:
            A mapping from tensor name to weights, in float32.
        """
        ...

    def float_specs(self) -> tuple[FloatSpec, ...]:
        """Describe the arrays of floats that each task stores. Most networks have none."""
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
        """Compute logits that are differentiable with respect to the gains.

        Args:
            weights: the fixed weights, from the method `weights`.
            gains: a mapping from the name of each masked tensor to its gains: (*shape) for one
                state, or (B, *shape) for B states.
            inputs: normalised inputs. If all states have the same N inputs, (N, *input_shape). If
                each state has its own inputs, (B, N, *input_shape).
            floats: a mapping from name to running statistics, (*shape) for one state or
                (B, *shape) for B states. If None, the network normalises with the statistics of
                the batch.
            track: if true, the network normalises with the statistics of the batch, and moves
                `floats` towards these statistics in place, as batch normalisation does in
                training. If false, the network normalises with `floats`, unless it is None.

        Returns:
            Logits (N, S), or (B, N, S) for B states.
        """
        ...

    def features(
        self,
        weights: Weights,
        gains: Gains,
        inputs: Float[Tensor, "N ..."],
        floats: Floats | None = None,
    ) -> Float[Tensor, "N F"]:
        """Compute the features of inputs with one state: the inputs of the network's last layer.

        Args:
            weights: the fixed weights, from the method `weights`.
            gains: a mapping from the name of each masked tensor to its gains, (*shape).
            inputs: (N, *input_shape) normalised inputs.
            floats: a mapping from name to running statistics, as for `logits`.

        Returns:
            (N, F) the features; F depends on the network.

        Raises:
            ValueError: the network has no layer whose inputs can be seen.
        """
        ...

    def on_inputs(self, weights: Weights, inputs: Float[Tensor, "..."]) -> Logits:
        """Return a function that computes the logits of these inputs from gains.

        The function calls `logits` without floats. Values that do not depend on the gains may be
        computed only once.

        Args:
            weights: the fixed weights, from the method `weights`.
            inputs: normalised inputs, as for `logits`.
        """
        ...


def num_gains(network: Network) -> int:
    """Return the number of gains of all masked tensors together."""
    return sum(tensor.num_gains for tensor in network.tensors)
