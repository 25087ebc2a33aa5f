"""The objectives that task inference minimises over the coefficients of a superposition.

Every objective has one value per image. The value of a query is the mean over the query's
images. For each objective, a second function computes the gradient in closed form.

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
    """An objective: its value for each image's logits, and the gradient in the logits.

    Attributes:
        value: function (logits (*N, S), num_real) -> (*N,) values.
        gradient: function (logits (*N, S), num_real) -> (*N, S), the gradient of the sum of
            the values over the images.
        first_layer_only: whether only the first layer's masks count in d objective / d alpha.
            This flag does not change `value` and `gradient`.
    """

    value: Function
    gradient: Function
    first_layer_only: bool = False

    def __call__(self, logits: Tensor, num_real: int) -> Tensor:
        """Compute the value of each image, (*N,), from logits (*N, S)."""
        return self.value(logits, num_real)


def entropy(logits: Float[Tensor, "*N S"], num_real: int) -> Float[Tensor, "*N"]:
    """Compute H, the entropy of the softmax over all outputs, in nats.

    Args:
        logits: outputs of the network, real and superfluous neurons.
        num_real: not used. The argument exists because all objectives have the same arguments.
    """
    log_p = torch.log_softmax(logits, dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1)


def entropy_gradient(logits: Float[Tensor, "*N S"], num_real: int) -> Float[Tensor, "*N S"]:
    """Compute d H / d logits = -p (log p + H), with p the softmax of the logits."""
    log_p = torch.log_softmax(logits, dim=-1)
    p = log_p.exp()
    return -p * (log_p - (p * log_p).sum(dim=-1, keepdim=True))


def superfluous(logits: Float[Tensor, "*N S"], num_real: int) -> Float[Tensor, "*N"]:
    """Compute G, the logsumexp over all outputs; only superfluous neurons have a gradient.

    A trained mask has learnt to lower the outputs of the superfluous neurons. So G falls when
    the coefficient of the right task grows.

    Args:
        logits: outputs of the network, the real neurons first, then the superfluous neurons.
        num_real: number of outputs that have a label; no gradient flows through these outputs.

    Raises:
        ValueError: there is no superfluous neuron, so that G has no gradient.
    """
    if num_real >= logits.shape[-1]:
        raise ValueError(
            "objective G needs superfluous neurons (outputs without a label), got "
            f"{logits.shape[-1]} outputs, {num_real} of them real: use more outputs or objective H"
        )
    real = logits[..., :num_real].detach()
    return torch.logsumexp(torch.cat([real, logits[..., num_real:]], dim=-1), dim=-1)


def superfluous_gradient(logits: Float[Tensor, "*N S"], num_real: int) -> Float[Tensor, "*N S"]:
    """Compute d G / d logits: the softmax at superfluous neurons, 0 at real neurons."""
    gradient = torch.softmax(logits, dim=-1)
    gradient[..., :num_real] = 0
    return gradient


OBJECTIVES: dict[str, Objective] = {
    "H": Objective(entropy, entropy_gradient),
    "G": Objective(superfluous, superfluous_gradient),
    "H_first_layer": Objective(entropy, entropy_gradient, first_layer_only=True),
    "G_first_layer": Objective(superfluous, superfluous_gradient, first_layer_only=True),
}
