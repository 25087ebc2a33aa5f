"""Recover the masks of a task from reservoirs and from images without labels, as HopSupSup does.

Gradient descent changes the masks. The loss is a weighted sum: the entropy of the outputs plus the
energy of the reservoirs. With every step, the factor of the entropy gets smaller and the factor of
the energy gets larger.

Source: Wortsman et al. 2020, appendix on HopSupSup, and the authors' code.
Shape letters: U gains of a masked tensor.
"""

from collections.abc import Iterator, Sequence
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
        energy: factor of the energy in the last step. It grows linearly from step to step.
    """

    learning_rate: float = 500.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    energy: float = 1.5e-3


@dataclass(frozen=True, eq=False)  # == of tensors has no single truth value
class Point:
    """The masks after some steps of gradient descent.

    Attributes:
        masks: one mask per masked tensor, with the values -1 and +1.
        energy: the sum of the energies of these masks in their reservoirs.
        entropy: the mean entropy of the outputs, in nats, for the images of the next step. None
            after the last step.
    """

    masks: tuple[Float32[Tensor, " _"], ...]
    energy: float
    entropy: float | None


def recover(
    network: Network,
    weights: Weights,
    reservoirs: Sequence[Reservoir],
    starts: Sequence[Float32[Tensor, " _"]],
    batches: Sequence[Float32[Tensor, "_ ..."]],
    descent: Descent,
) -> Iterator[Point]:
    """Recover the masks of a task by gradient descent, with one step per batch.

    A mask is the sign of real values, and gradients pass through the sign unchanged. Step t of T
    steps minimises

        (1 - t / T) * entropy  +  (t / T) * descent.energy * energy

    Args:
        network: the fixed network.
        weights: a mapping from tensor name to the network's fixed weights.
        reservoirs: one reservoir per masked tensor. It holds the stored masks of this tensor.
        starts: for each masked tensor, the real values (one per gain, in C order) from which
            descent starts, for example the mean of the stored masks.
        batches: the normalised images of the T steps, all from the same task.
        descent: settings of the gradient descent.

    Yields:
        T + 1 points: the start, and the masks after each step.
    """
    reals = [start.clone().requires_grad_() for start in starts]
    optimizer = torch.optim.SGD(
        reals,
        lr=descent.learning_rate,
        momentum=descent.momentum,
        weight_decay=descent.weight_decay,
    )
    for step, images in enumerate(batches, start=1):
        done = step / len(batches)
        optimizer.zero_grad()
        bits = [_bits(real) for real in reals]
        pairs = zip(network.tensors, bits, strict=True)
        gains = {tensor.name: bit.reshape(tensor.shape) for tensor, bit in pairs}
        logits = network.logits(weights, gains, images)
        uncertain = entropy(logits, logits.shape[-1]).mean()
        energy = _energy(reservoirs, bits)
        yield Point(_masks(reals), float(energy.detach()), float(uncertain.detach()))
        ((1 - done) * uncertain + done * descent.energy * energy).backward()
        optimizer.step()
    with torch.no_grad():
        energy = _energy(reservoirs, [_bits(real) for real in reals])
    yield Point(_masks(reals), float(energy), None)


def _energy(
    reservoirs: Sequence[Reservoir], bits: Sequence[Float32[Tensor, " _"]]
) -> Float32[Tensor, ""]:
    """Return the sum of the energies of masks, whose bits are 0 and 1, in their reservoirs."""
    pairs = zip(reservoirs, bits, strict=True)
    return torch.stack([one.energy(2 * bit[None] - 1)[0] for one, bit in pairs]).sum()


def _bits(real: Float32[Tensor, " U"]) -> Float32[Tensor, " U"]:
    """Return 1 for values of at least 0, else 0. The gradient is that of the identity."""
    return (real.detach() >= 0).to(real.dtype) + (real - real.detach())


def _masks(reals: Sequence[Float32[Tensor, " _"]]) -> tuple[Float32[Tensor, " _"], ...]:
    return tuple(torch.where(real.detach() >= 0, 1.0, -1.0) for real in reals)
