"""How surely tasks would be told apart among many masks, estimated from few.

Shape letters: Q queries, T masks.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def expected_task_accuracy(
    slopes: Float[Tensor, "Q T"], truth: Int64[Tensor, " Q"], among: int
) -> float:
    """The task accuracy of one-shot inference to expect among so many masks.

    The margin z of a query is how far the right task's slope lies below the mean of the
    others, in their standard deviations. Were the slopes of all others normal, the right one
    of `among` would have the smallest with probability Phi(z)^(among - 1).

    Args:
        slopes: d objective / d alpha of every mask.
        truth: the right task of each query.
        among: masks to find it among.

    Returns:
        The mean of that probability over the queries; a query whose other slopes are all
        equal counts as certain or hopeless.

    Raises:
        ValueError: fewer than 3 masks.
    """
    num_masks = slopes.shape[1]
    if num_masks < 3:
        raise ValueError(f"slopes must be of 3 masks at least, got {num_masks}")
    slopes = slopes.double()
    own = slopes.gather(1, truth[:, None])
    is_own = torch.zeros_like(slopes, dtype=torch.bool).scatter_(1, truth[:, None], True)
    others = slopes[~is_own].reshape(len(slopes), num_masks - 1)
    margin = (others.mean(dim=1) - own[:, 0]) / others.std(dim=1)
    margin = margin.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    return float(torch.exp((among - 1) * torch.special.log_ndtr(margin)).mean())
