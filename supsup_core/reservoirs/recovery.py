"""Recover the masks of a task (masks over units) from reservoirs and from images without labels.

Gradient descent changes the masks. The loss is a weighted sum: the entropy of the outputs plus the
energy of the reservoirs. With every step, the factor of the entropy gets smaller and the factor of
the energy gets larger.

Source: Wortsman et al. 2020, appendix on HopSupSup, and the authors' code.
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
    """Settings of SGD on the masks. The defaults are the authors' values.

    Attributes:
        learning_rate: SGD's learning rate.
        momentum: SGD's momentum.
        weight_decay: SGD's weight decay.
        energy: factor of the energy in the loss. It grows linearly from 0 to this value.
    """

    learning_rate: float = 500.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    energy: float = 1.5e-3


@dataclass(frozen=True, eq=False)  # == of tensors has no single truth value
class Recovered:
    """The masks that gradient descent reached.

    Attributes:
        masks: one mask per hidden layer: -1 or +1 for each unit of the layer.
        steps: number of steps until the last change of a mask; 0 if no mask changed.
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
    """Recover the masks of a task by gradient descent, with one step per batch.

    The loss is a weighted sum of the entropy of the outputs and the energy of the reservoirs.

    Args:
        network: the fixed network, with masks over its hidden units.
        weights: a mapping from tensor name to the network's fixed weights.
        reservoirs: one reservoir per hidden layer. It holds the stored masks of this layer.
        starts: for each hidden layer, the real values (one per unit) from which descent starts, for
            example the mean of the stored masks.
        batches: batches of normalised images, all from the same task.
        descent: settings of the gradient descent.
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
        # The gradient passes through _binary unchanged, as if _binary were the identity.
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
