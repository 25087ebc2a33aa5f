"""Fixed random networks: multilayer perceptrons whose weights follow from a seed.

Weights are signed Kaiming constants: +c or -c with c = sqrt(2 / fan_in), so a
network costs its seed alone. There are no biases. Shape letters: N images,
I and O inputs and outputs of a layer, S outputs of the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from supsup_core.streams import Role, stream


@dataclass(frozen=True)
class Layer:
    """One linear layer without bias.

    Attributes:
        name: "layer1" for the first.
        shape: (O, I).
        constant: c, the magnitude of every weight: sqrt(2 / I).
    """

    name: str
    shape: tuple[int, int]

    @property
    def constant(self) -> float:
        """The magnitude of every weight: the ReLU gain sqrt(2) over sqrt(fan_in)."""
        return sqrt(2.0 / self.shape[1])

    @property
    def num_weights(self) -> int:
        """O times I."""
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class Network:
    """An MLP with ReLU between its layers.

    Attributes:
        name: for people and tables.
        widths: units of the input, of each hidden layer, and of the output; the
            output may have more units than there are classes (superfluous neurons).
    """

    name: str
    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or any(width < 1 for width in self.widths):
            raise ValueError(
                f"widths must be two or more numbers >= 1, from input to output, got {self.widths}"
            )

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers from input to output."""
        pairs = zip(self.widths, self.widths[1:], strict=False)
        return tuple(Layer(f"layer{i}", (o, n)) for i, (n, o) in enumerate(pairs, start=1))

    @property
    def num_weights(self) -> int:
        """Weights of all layers."""
        return sum(layer.num_weights for layer in self.layers)


# Hidden widths of the networks that have a name; "mlp" takes any.
NAMED_HIDDEN: dict[str, tuple[int, ...]] = {
    "lenet_300_100": (300, 100),
    "fc_1024_1024": (1024, 1024),
}
NETWORKS = (*NAMED_HIDDEN, "mlp")


def make_network(
    name: str, num_inputs: int, num_outputs: int, hidden: Sequence[int] | None = None
) -> Network:
    """Build the specification of a network.

    Args:
        name: one of NETWORKS.
        num_inputs: pixels of an image.
        num_outputs: real and superfluous neurons together.
        hidden: widths of the hidden layers; for "mlp", and for no other.

    Raises:
        ValueError: an unknown name, or hidden widths given or missing against the name.
    """
    if name == "mlp":
        if hidden is None:
            raise ValueError("network mlp needs the widths of its hidden layers, got none")
        return Network(name, (num_inputs, *hidden, num_outputs))
    if name not in NAMED_HIDDEN:
        raise ValueError(f"network must be one of {', '.join(NETWORKS)}, got {name!r}")
    if hidden is not None:
        raise ValueError(f"network {name} has its own hidden widths, got {list(hidden)} beside it")
    return Network(name, (num_inputs, *NAMED_HIDDEN[name], num_outputs))


def fixed_signs(layer: Layer, seed: int, index: int) -> np.ndarray:
    """Draw the signs of a layer's weights.

    Args:
        layer: which.
        seed: of the run.
        index: of the layer, 0 for the first.

    Returns:
        int8 (O, I) of +1 and -1, each with probability 1/2.
    """
    bits = stream(seed, Role.WEIGHTS, index).integers(0, 2, size=layer.shape, dtype=np.int8)
    signs: np.ndarray = 2 * bits - 1
    return signs


def fixed_weights(network: Network, seed: int) -> list[Tensor]:
    """Draw the fixed weights of a network.

    Returns:
        float32 (O, I) for each layer, +-sqrt(2 / I). A layer's weights depend on
        seed, layer index and shape alone: not on tasks, nor on other layers.
    """
    return [
        torch.from_numpy(fixed_signs(layer, seed, i)).to(torch.float32) * layer.constant
        for i, layer in enumerate(network.layers)
    ]


def forward(weights: Sequence[Float[Tensor, "*B _ _"]], images: Tensor) -> Tensor:
    """Logits of an MLP with ReLU between the layers.

    Args:
        weights: (O, I) each, or (B, O, I) for B networks at once.
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
