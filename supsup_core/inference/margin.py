"""Estimate the task accuracy among many masks from the slopes of a few masks.

A trial of a search for good settings trains only a few masks. The accuracy of these masks is not
enough to rank trials. If a setting makes the masks of different tasks similar, accuracy may be
high, but the wrong task is often inferred.

Shape letters: Q queries, T masks.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def expected_task_accuracy(
    slopes: Float[Tensor, "Q T"], truth: Int64[Tensor, " Q"], among: int
) -> float:
    """Estimate the task accuracy of one-shot among `among` masks, from the slopes of T masks.

    For each query, z is the difference between the mean slope of the wrong tasks and the slope of
    the right task, divided by the standard deviation of the slopes of the wrong tasks. If these
    slopes are normally distributed, the slope of the right task is the smallest of `among` slopes
    with probability Phi(z)^(among - 1). Phi is the standard normal distribution function.

    Args:
        slopes: (Q, T) for Q queries, the slope d objective / d alpha of each of T masks.
        truth: (Q,) the right task of each query, a number from 0 to T - 1.
        among: number of masks for which to estimate the accuracy, at least 1. The right mask
            counts too.

    Returns:
        The mean of the probability over the queries, in [0, 1]. If the slopes of all wrong tasks of
        a query are equal, the probability is 1 if the slope of the right task is smaller, and 0
        otherwise.

    Raises:
        ValueError: T < 3, or among < 1.
    """
    if among < 1:
        raise ValueError(f"among must be >= 1, got {among}: try among=1")
    num_masks = slopes.shape[1]
    if num_masks < 3:
        raise ValueError(f"slopes must be for 3 masks or more, got {num_masks}: train more tasks")
    slopes = slopes.double()
    own = slopes.gather(1, truth[:, None])
    is_own = torch.zeros_like(slopes, dtype=torch.bool).scatter_(1, truth[:, None], True)
    others = slopes[~is_own].reshape(len(slopes), num_masks - 1)
    margin = (others.mean(dim=1) - own[:, 0]) / others.std(dim=1)
    margin = margin.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    # A power, and not exp((among - 1) * log Phi): Phi = 0 must give 1 if there is no wrong mask.
    return float((torch.special.ndtr(margin) ** (among - 1)).mean())
