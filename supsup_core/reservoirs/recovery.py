"""Recover a task's unit masks from reservoirs and from images without labels.

Masks go downhill on the entropy of the outputs plus the reservoirs' energy; the first
counts for less with every step, the second for more.

Source: Wortsman et al. 2020, appendix on HopSupSup, and its code.
Shape letters: N images of a batch, P pixels, O units of a hidden layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float32
from torch import Tensor

from supsup_core.inference.objectives import entropy
from supsup_core.networks.protocol import Network, Weights
from supsup_core.reservoirs.protocol import Reservoir


@dataclass(frozen=True)
class Descent:
    """SGD on the masks, the authors' values as defaults.

    Attributes:
        learning_rate: of a step.
        momentum: likewise.
        weight_decay: likewise.
        energy: what the energy counts at the last step.
    """

    learning_rate: float = 500.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    energy: float = 1.5e-3


@dataclass(frozen=True, eq=False)  # == of tensors has no single truth value
class Recovered:
    """Where the descent has led.

    Attributes:
        masks: of each hidden layer, -1 and +1.
        steps: after so many the masks did not change any more.
    """

    masks: tuple[Float32[Tensor, " _"], ...]
    steps: int


def recover(
    network: Network,
    weights: Weights,
    reservoirs: Sequence[Reservoir],
    starts: Sequence[Float32[Tensor, " _"]],
    batches: Sequence[Float32[Tensor, "N ..."]],
    descent: Descent,
) -> Recovered:
    """Go downhill, a step a batch.

    Args:
        network: whose hidden units are masked.
        weights: the fixed weights of the network.
        reservoirs: of each hidden layer's masks.
        starts: where to begin: for example the mean of the masks that are stored.
        batches: images of one task, normalised.
        descent: of the steps.
    """
    reals = [start.clone().requires_grad_() for start in starts]
    optimizer = torch.optim.SGD(
        reals,
        lr=descent.learning_rate,
        momentum=descent.momentum,
        weight_decay=descent.weight_decay,
    )
    now, steps = [_binary(real) for real in reals], 0
    for step, images in enumerate(batches):
        done = step / len(batches)
        optimizer.zero_grad()
        # The gradient passes the binary step unchanged.
        states = [_binary(real) + real - real.detach() for real in reals]
        pairs = zip(network.tensors, states, strict=True)
        gains = {tensor.name: (state + 1) / 2 for tensor, state in pairs}
        logits = network.logits(weights, gains, images)
        loss = (1 - done) * entropy(logits, logits.shape[-1]).mean()
        for reservoir, state in zip(reservoirs, states, strict=True):
            loss = loss + descent.energy * done * reservoir.energy(state[None])[0]
        loss.backward()
        optimizer.step()
        before, now = now, [_binary(real) for real in reals]
        if any(not torch.equal(a, b) for a, b in zip(before, now, strict=True)):
            steps = step + 1
    return Recovered(tuple(now), steps)


def _binary(real: Tensor) -> Tensor:
    return torch.where(real.detach() >= 0, 1.0, -1.0)
