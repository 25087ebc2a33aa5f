"""Estimate the task accuracy among many masks from the slopes of a few masks.

A search trains a few masks per trial only. The accuracy of these masks is not enough to rank
trials, because the masks of different tasks may become similar, and then tasks are confused.

Shape letters: Q queries, T masks.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def expected_task_accuracy(
    slopes: Float[Tensor, "Q T"], truth: Int64[Tensor, " Q"], among: int
) -> float:
    """Estimate the task accuracy of one-shot inference among `among` masks.

    The margin z of a query is (mean of the wrong tasks' slopes - the right task's slope) /
    (standard deviation of the wrong tasks' slopes). If the wrong tasks' slopes are normally
    distributed, the right task has the smallest of `among` slopes with probability
    Phi(z)^(among - 1).

    Args:
        slopes: d objective / d alpha of every mask.
        truth: the right task of each query, in [0, T).
        among: number of masks, with the right mask, that the estimate is for.

    Returns:
        The mean of this probability over the queries, in [0, 1]. If all wrong slopes of a query
        are equal, the probability is 1 if the right slope is smaller, and 0 otherwise.

    Raises:
        ValueError: fewer than 3 masks.
    """
    num_masks = slopes.shape[1]
    if num_masks < 3:
        raise ValueError(f"slopes must be of 3 masks or more, got {num_masks}: train more tasks")
    slopes = slopes.double()
    own = slopes.gather(1, truth[:, None])
    is_own = torch.zeros_like(slopes, dtype=torch.bool).scatter_(1, truth[:, None], True)
    others = slopes[~is_own].reshape(len(slopes), num_masks - 1)
    margin = (others.mean(dim=1) - own[:, 0]) / others.std(dim=1)
    margin = margin.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    return float(torch.exp((among - 1) * torch.special.log_ndtr(margin)).mean())
