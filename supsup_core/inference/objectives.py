"""The objectives of task inference. The task whose mask makes the objective small is inferred.

An objective has one value per image. The value of a query is the mean over the query's images.
For each objective, a second function computes the gradient by a formula, without autograd.

Shape letters: N images, S outputs.
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
    """An objective: a function of an image's logits, and its gradient.

    Attributes:
        value: a function that takes logits (*N, S), and the number of outputs that belong to a
            class. It returns one value per image, (*N,). *N is any number of axes.
        gradient: a function with the same arguments. It returns the derivative of each image's
            value with respect to the image's logits, (*N, S).
        first_layer_only: if true, d objective / d alpha is computed from the masks of the first
            layer only. If false, it is computed from the masks of all layers. `value` and
            `gradient` are the same in both cases.
    """

    value: Function
    gradient: Function
    first_layer_only: bool = False

    def __call__(self, logits: Tensor, num_real: int) -> Tensor:
        """Compute one value per image, (*N,), from logits (*N, S); see `value`."""
        return self.value(logits, num_real)


def entropy(logits: Float[Tensor, "*N S"], num_real: int) -> Float[Tensor, "*N"]:
    """Compute H, the entropy of the softmax over all outputs, in nats.

    Args:
        logits: (*N, S) the S outputs of the network for each image.
        num_real: not used. The argument exists because all objectives have the same arguments.
    """
    log_p = torch.log_softmax(logits, dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1)


def entropy_gradient(logits: Float[Tensor, "*N S"], num_real: int) -> Float[Tensor, "*N S"]:
    """Compute the derivative of `entropy`: -p (log p + H). p is the softmax, H the entropy."""
    log_p = torch.log_softmax(logits, dim=-1)
    p = log_p.exp()
    return -p * (log_p - (p * log_p).sum(dim=-1, keepdim=True))


def superfluous(logits: Float[Tensor, "*N S"], num_real: int) -> Float[Tensor, "*N"]:
    """Compute G, the logsumexp over all outputs. Its gradient is set to 0 at the real neurons.

    Real neurons are the outputs that belong to a class, and superfluous neurons are the other
    outputs. In training, a mask has learnt to keep the superfluous neurons low. So G falls if the
    coefficient of the right task grows.

    Args:
        logits: (*N, S) the S outputs of the network for each image, real neurons first.
        num_real: number of real neurons.

    Raises:
        ValueError: there is no superfluous neuron, so G would have no gradient.
    """
    if num_real >= logits.shape[-1]:
        raise ValueError(
            "objective G needs superfluous neurons (outputs without a class), got "
            f"{logits.shape[-1]} outputs, {num_real} of them real: use more outputs or objective H"
        )
    real = logits[..., :num_real].detach()
    return torch.logsumexp(torch.cat([real, logits[..., num_real:]], dim=-1), dim=-1)


def superfluous_gradient(logits: Float[Tensor, "*N S"], num_real: int) -> Float[Tensor, "*N S"]:
    """Compute the derivative of G: the softmax at superfluous neurons, and 0 at real neurons."""
    gradient = torch.softmax(logits, dim=-1)
    gradient[..., :num_real] = 0
    return gradient


OBJECTIVES: dict[str, Objective] = {
    "H": Objective(entropy, entropy_gradient),
    "G": Objective(superfluous, superfluous_gradient),
    "H_first_layer": Objective(entropy, entropy_gradient, first_layer_only=True),
    "G_first_layer": Objective(superfluous, superfluous_gradient, first_layer_only=True),
}
