"""Weights that tasks train together: take them from scores, and pass them on to later tasks."""

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from supsup_core.methods.protocol import Scores, Shared, of_one_task
from supsup_core.networks.protocol import Network, Weights

# Prefix of the names of scores that are weights in training, for finders that also have scores of
# masks. The name of the weights follows.
WEIGHTS = "weights "


def first_weights(network: Network, names: Collection[str], seed: int) -> dict[str, np.ndarray]:
    """Return the network's fixed weights of the given names, as scores of the first task."""
    drawn = network.weights(seed)
    return {name: drawn[name].numpy().copy() for name in names}


def weights_in(scores: Scores, names: Collection[str]) -> dict[str, Tensor]:
    """Return the weights of the given names among the scores of one task.

    Raises:
        ValueError: the scores are those of several tasks.
    """
    return {name: of_one_task(scores[name]) for name in names if name in scores}


def as_shared(values: Mapping[str, Tensor]) -> Shared:
    """Convert trained values to float32 arrays, the data for later tasks."""
    return {
        name: value.detach().to("cpu", torch.float32, copy=True).numpy()
        for name, value in values.items()
    }


def trained_before(shared: Shared | None, weights: Weights) -> dict[str, Tensor]:
    """Return the weights that earlier tasks have trained, in float32.

    Args:
        shared: data from earlier tasks. An actor of Ray gets read-only arrays, so they are copied.
        weights: a mapping from name to the fixed weights. The result is on their device.
    """
    return {
        name: torch.tensor(values, device=weights[name].device)
        for name, values in (shared or {}).items()
        if name in weights
    }
