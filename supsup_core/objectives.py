"""What task inference minimises over the coefficients of a superposition.

Shape letters: N images, S outputs. Every objective gives one value an image; a
query of several images takes their mean.
Source: Wortsman et al. 2020: the entropy H, and G for superfluous neurons.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Objective = Callable[[Tensor, int], Tensor]


def entropy(logits: Float[Tensor, "*N S"], num_real: int) -> Float[Tensor, "*N"]:
    """H, the entropy of the softmax over all outputs, in nats.

    Args:
        logits: real and superfluous neurons.
        num_real: not used; every objective has the same arguments.
    """
    log_p = torch.log_softmax(logits, dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1)


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


OBJECTIVES: dict[str, Objective] = {"H": entropy, "G": superfluous}
