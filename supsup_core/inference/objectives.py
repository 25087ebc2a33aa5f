"""What task inference minimises over the coefficients of a superposition.

Shape letters: N images, S outputs. Every objective gives one value an image; a
query of several images takes their mean. Their gradients are written out beside them.
Source: Wortsman et al. 2020: the entropy H, and G for superfluous neurons.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Function = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Objective:
    """A value of logits (*N, S), one an image, and its gradient in them.

    Attributes:
        value: (logits, num_real) -> (*N,).
        gradient: (logits, num_real) -> (*N, S), of the sum over images.
        first_layer_only: whether evidence, d objective / d alpha, counts the masks of
            the first layer alone; value and gradient are what they are.
    """

    value: Function
    gradient: Function
    first_layer_only: bool = False

    def __call__(self, logits: Tensor, num_real: int) -> Tensor:
        """The value."""
        return self.value(logits, num_real)


def entropy(logits: Float[Tensor, "*N S"], num_real: int) -> Float[Tensor, "*N"]:
    """H, the entropy of the softmax over all outputs, in nats.

    Args:
        logits: real and superfluous neurons.
        num_real: not used; every objective has the same arguments.
    """
    log_p = torch.log_softmax(logits, dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1)


def entropy_gradient(logits: Float[Tensor, "*N S"], num_real: int) -> Float[Tensor, "*N S"]:
    """D H / d logits = -p (log p + H)."""
    log_p = torch.log_softmax(logits, dim=-1)
    p = log_p.exp()
    return -p * (log_p - (p * log_p).sum(dim=-1, keepdim=True))


def superfluous(logits: Float[Tensor, "*N S"], num_real: int) -> Float[Tensor, "*N"]:
    """G, the logsumexp over all outputs, blind to the gradient of the real ones.

    A trained mask has learnt to push the superfluous neurons down, so the right
    task's growth lowers G.

    Args:
        logits: real neurons first, then superfluous ones.
        num_real: how many outputs have a label; the gradient of these is cut.

    Raises:
        ValueError: there is no superfluous neuron, so that G has no gradient.
    """
    if num_real >= logits.shape[-1]:
        raise ValueError(
            f"objective G needs superfluous neurons: {logits.shape[-1]} outputs, "
            f"{num_real} of them real"
        )
    real = logits[..., :num_real].detach()
    return torch.logsumexp(torch.cat([real, logits[..., num_real:]], dim=-1), dim=-1)


def superfluous_gradient(logits: Float[Tensor, "*N S"], num_real: int) -> Float[Tensor, "*N S"]:
    """D G / d logits: the softmax at superfluous neurons, 0 at real ones."""
    gradient = torch.softmax(logits, dim=-1)
    gradient[..., :num_real] = 0
    return gradient


OBJECTIVES: dict[str, Objective] = {
    "H": Objective(entropy, entropy_gradient),
    "G": Objective(superfluous, superfluous_gradient),
    "H_first_layer": Objective(entropy, entropy_gradient, first_layer_only=True),
    "G_first_layer": Objective(superfluous, superfluous_gradient, first_layer_only=True),
}
