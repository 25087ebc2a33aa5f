"""A network with the state of one task, as a torch.nn.Module."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from supsup_core.data import normalise
from supsup_core.networks.protocol import Floats, Gains, Network, Weights

Moments = tuple[tuple[float, ...], tuple[float, ...]]


class MaskedModel(nn.Module):
    """A module that computes the logits of a network with the gains of one task.

    All tensors are buffers, because nothing of a stored task is trained any more. So `to`,
    `state_dict` and `torch.save` work as for other modules. In evaluation mode, a network with
    batch normalisation uses the running statistics of the task. In training mode, or if the task
    has no statistics, it uses the statistics of the batch.

    Args:
        network: the fixed network.
        weights: a mapping from tensor name to the weights of the network.
        gains: a mapping from the name of each masked tensor to the gains of the task.
        floats: a mapping from name to the running statistics of the task; empty if there are none.
        moments: mean and standard deviation of pixel / 255, one value per channel or one for all
            channels. With them, the module normalises inputs of uint8. None: inputs must be floats.
    """

    def __init__(
        self,
        network: Network,
        weights: Weights,
        gains: Gains,
        floats: Floats,
        moments: Moments | None = None,
    ) -> None:
        super().__init__()
        self.network, self._moments = network, moments
        self._names: dict[str, dict[str, str]] = {}
        for kind, values in (("weight", weights), ("gain", gains), ("float", floats)):
            self._names[kind] = {name: f"{kind}_{name.replace('.', '_')}" for name in values}
            for name, buffer in self._names[kind].items():
                self.register_buffer(buffer, values[name].clone())

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the logits (N, S) of N inputs.

        Args:
            inputs: (N, *input_shape) normalised inputs, or pixels of uint8, which are normalised
                first.

        Raises:
            ValueError: the inputs are of uint8, and the module does not know how to normalise them.
        """
        floats = self._tensors("float")
        found: Tensor = self.network.logits(
            self._tensors("weight"),
            self._tensors("gain"),
            normalised(inputs, self._moments),
            floats if floats and not self.training else None,
        )
        return found

    def _tensors(self, kind: str) -> Mapping[str, Tensor]:
        return {name: self.get_buffer(buffer) for name, buffer in self._names[kind].items()}


def normalised(inputs: Tensor, moments: Moments | None) -> Tensor:
    """Normalise pixels of uint8, and return other inputs unchanged.

    Args:
        inputs: pixels of uint8, or normalised inputs.
        moments: mean and standard deviation of pixel / 255; None if they are unknown.

    Raises:
        ValueError: the inputs are of uint8, and `moments` is None.
    """
    if inputs.dtype != torch.uint8:
        return inputs
    if moments is None:
        raise ValueError(
            "inputs must be normalised floats, got uint8: convert them as in the training"
        )
    return normalise(inputs, *moments)
