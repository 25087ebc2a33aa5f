"""The protocol of a network: it lists its masked tensors, and computes logits from their gains.

The state of a task gives one tensor of gains for each masked tensor. Gains over weights multiply a
tensor of weights element by element. Gains over units multiply the units of a layer.

Shape letters: B states that are computed together, N inputs, S outputs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

Weights = Mapping[str, Tensor]  # source -> weights
Gains = Mapping[str, Tensor]  # name of the masked tensor -> gains
Floats = Mapping[str, Tensor]  # name of the FloatSpec -> array
Logits = Callable[[Gains], Tensor]  # gains -> logits (*B, N, S) of fixed inputs; batch statistics


@dataclass(frozen=True)
class MaskedTensor:
    """A tensor of gains: one gain for each weight of a tensor, or for each unit of a layer.

    Attributes:
        name: name of the tensor of gains.
        shape: shape of the tensor of gains.
        fan_in: number of inputs that a unit of the layer sums.
        source: name of the tensor of weights that the gains multiply. Several masked tensors may
            have the same source.
        over: "weights": each gain multiplies one weight. "units": each gain multiplies all that
            one unit sends to the next layer.
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
        name: name of the array.
        role: purpose of the array. "scale": the array multiplies the gains of `tensor`.
            "statistic": the array is a running mean or variance of a normalisation. "head": the
            array holds the weights of a layer that only this task has. "factor": the array is a
            factor of a rank-one gain.
        shape: shape of the array.
        initial: value of all elements before training.
        tensor: name of the masked tensor, for the role "scale"; None for other roles.
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
        """The name of the function after a hidden layer, for people who read the masks."""
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
        """S, the number of real and superfluous neurons together."""
        ...

    @property
    def normalises(self) -> bool:
        """Whether logits depend on the whole batch if no statistics of the task are given."""
        ...

    @property
    def num_activations(self) -> int:
        """Number of values that a forward pass of one input keeps for the backward pass."""
        ...

    def weights(self, seed: int) -> dict[str, Tensor]:
        """Draw the fixed weights from random streams of the seed: float32 tensors by source."""
        ...

    def float_specs(self) -> tuple[FloatSpec, ...]:
        """List the arrays of floats that a task stores; the list is empty for most networks."""
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
            weights: fixed weights, by source.
            gains: gains by the name of the masked tensor: (*shape), or (B, *shape) for B states.
            inputs: normalised inputs: (N, *input_shape), which all states share, or
                (B, N, *input_shape).
            floats: running statistics of the tasks by name, (*shape) or (B, *shape) as for the
                gains. None: the network normalises with the statistics of the batch.
            track: if true, the network normalises with the statistics of the batch, and moves
                `floats` towards these statistics in place, as batch normalisation does in
                training.

        Returns:
            Logits (N, S), or (B, N, S) for B states.
        """
        ...

    def on_inputs(self, weights: Weights, inputs: Float[Tensor, "..."]) -> Logits:
        """Return a function from gains to the logits of these inputs, without floats.

        Values that do not depend on the gains are computed once.
        """
        ...


def num_gains(network: Network) -> int:
    """Count the gains of all masked tensors."""
    return sum(tensor.num_gains for tensor in network.tensors)
