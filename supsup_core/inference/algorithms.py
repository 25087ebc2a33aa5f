"""Infer to which stored task some images belong.

Four algorithms use the gradient of an objective with respect to the coefficients of the
superposition. The elements of this gradient are called slopes. One-shot takes the task with
the smallest slope. Binary drops half of the candidate tasks in each round, until one task is left.
Gradient descent and Frank-Wolfe change the coefficients step by step. For comparison,
forward.py has two algorithms that compute a forward pass with each mask.

The algorithms do not depend on the network. They call a gradient function (slopes.py),
which maps coefficients (A, T) to slopes (Q, T). A is 1 if all queries have the same
coefficients, and Q otherwise.

Shape letters: Q queries, T stored tasks, A coefficient vectors.
Source: Wortsman et al. 2020, arXiv:2006.14769, sections 3.3 and B. There are two
differences from the authors' code: only stored tasks are candidates, and binary does not
stop if slopes are equal.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from supsup_core.inference.answers import (
    Best,
    Evidence,
    Inference,
    alone,
    two_largest,
    two_smallest,
)


@runtime_checkable  # lets tests check annotations at run time
class AlphaGradient(Protocol):
    """The gradient of an objective with respect to the coefficients, for several queries.

    Attributes:
        num_queries: Q, the number of queries.
        num_tasks: T, the number of stored tasks.
        device: the device of the coefficients and of the gradient.
    """

    num_queries: int
    num_tasks: int
    device: torch.device

    def __call__(self, alphas: Float[Tensor, "A T"]) -> Float[Tensor, "Q T"]:
        """Compute the slopes d objective / d alpha of each query.

        Args:
            alphas: coefficients of the T stored tasks: (1, T) for all queries, or (Q, T) with one
                row per query.

        Returns:
            (Q, T) slopes of Q queries.
        """
        ...


@dataclass(frozen=True)
class Options:
    """Options of the inference algorithms that use gradients. One-shot has no options.

    Attributes:
        log_base: for binary: each round keeps about 1 / log_base of the candidate tasks. At least
            2.
        steps: for gradient descent and Frank-Wolfe, the number of steps, at least 1.
        rate: for gradient descent, the factor that multiplies the gradient in each step. Positive.
    """

    log_base: int = 2
    steps: int = 10
    # In 10 steps with objective H, this rate moves the coefficients to a corner of the simplex: one
    # coefficient is 1, and the others are 0. With G, it moves them most of the way. Rates were
    # tried on MLPs of 64 units, with 40 and 250 permutations of the digits and one image per query.
    # Rates from 0.1 to 1 found no fewer tasks than one-shot. With 3, the coefficients jump between
    # corners. With 0.01, they stay almost equal.
    rate: float = 0.3


def _check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be >= {least}, got {value}: try {name}={least}")


def one_shot(gradient: AlphaGradient) -> Inference:
    """Infer the task with the smallest slope, from one gradient at equal coefficients.

    An increase of this task's coefficient lowers the objective more steeply than an increase
    of any other coefficient. If slopes are equal, the lowest task number wins.

    Raises:
        FloatingPointError: a slope is not finite.
    """
    num_tasks = gradient.num_tasks
    evidence = Evidence()
    slopes = gradient(torch.full((1, num_tasks), 1 / num_tasks, device=gradient.device))
    evidence.see(slopes, num_tasks)
    return evidence.answer(two_smallest(slopes), num_gradients=1)


def num_kept(num_left: int, log_base: int) -> int:
    """Return how many of `num_left` candidates a round of the algorithm binary keeps.

    This is num_left / log_base, rounded up.

    Raises:
        ValueError: log_base < 2, so that no round would drop a candidate.
    """
    _check_at_least("log_base", log_base, 2)
    return (num_left - 1) // log_base + 1


def binary(gradient: AlphaGradient, log_base: int = 2) -> Inference:
    """Infer the task by dropping candidate tasks in rounds, until one task is left.

    At first, all T stored tasks are candidates. Each round gives all candidates equal
    coefficients, and keeps the candidates with the smallest slopes. The number of candidates
    is divided by log_base and rounded up. With log_base >= T, the first round keeps one
    candidate, as one-shot does. If slopes are equal, the candidate with the smaller slope in
    the round before wins. In the first round, the lower task number wins. The runner-up is the best
    candidate that the last round dropped.

    Raises:
        ValueError: log_base < 2.
        FloatingPointError: the slope of a candidate is not finite.

    Cost: ceil(log_b T) gradients, with b = log_base.
    """
    _check_at_least("log_base", log_base, 2)
    num_queries, device = gradient.num_queries, gradient.device
    candidates = torch.arange(gradient.num_tasks, device=device).expand(num_queries, -1)
    num_gradients, evidence, best = 0, Evidence(), alone(candidates[:, 0])
    while (num_left := candidates.shape[1]) > 1:
        # In the first round, all queries have the same candidates and share one superposition.
        shared = candidates[:1] if num_gradients == 0 else candidates
        alphas = torch.zeros((len(shared), gradient.num_tasks), device=device)
        alphas.scatter_(1, shared, 1 / num_left)
        slopes = gradient(alphas).gather(1, candidates)
        evidence.see(slopes, num_left)
        slopes, ranking = torch.sort(slopes, dim=1, stable=True)
        ranked = candidates.gather(1, ranking)
        candidates = ranked[:, : num_kept(num_left, log_base)]
        best = Best(ranked[:, 0], ranked[:, 1], (slopes[:, 1] - slopes[:, 0]).double())
        num_gradients += 1
    return evidence.answer(best, num_gradients)


def gradient_descent(gradient: AlphaGradient, *, steps: int, rate: float) -> Inference:
    """Move the coefficients against the gradient. Infer the task with the largest coefficient.

    All coefficients start at 1 / T. Each step computes

        alpha <- alpha - rate * d objective / d alpha

    and then replaces alpha by the nearest point of the simplex (the vectors without negative
    elements and with sum 1). With one step, the answer is that of one-shot, unless the rate is
    so small that the step is lost in the rounding of float32. If coefficients are equal, the
    lower task number wins.

    Raises:
        ValueError: steps < 1, or the rate is not positive and finite.
        FloatingPointError: a slope is not finite.

    Cost: `steps` gradients.
    Source: Wortsman et al. 2020, equation 3. In the paper, the coefficients "are
        re-normalized to sum to one after each update". The paper does not say how, and this
        algorithm does not work in the authors' code. Without a normalisation, the sum of the
        coefficients grows, because larger logits have less entropy for any task, and G may
        diverge. Division by the sum fails if the sum is not positive.
    """
    _check_at_least("steps", steps, 1)
    if not 0 < rate < inf:
        raise ValueError(f"rate must be positive and finite, got {rate}: try rate=0.3")
    num_tasks, evidence = gradient.num_tasks, Evidence()
    alphas = torch.full((1, num_tasks), 1 / num_tasks, device=gradient.device)
    for _ in range(steps):
        slopes = gradient(alphas)
        evidence.see(slopes, num_tasks)
        alphas = _onto_simplex(alphas - rate * slopes)
    return evidence.answer(two_largest(alphas), steps)


def _onto_simplex(points: Float[Tensor, "Q T"]) -> Float[Tensor, "Q T"]:
    """Find, for each point, the nearest vector without negative elements and with sum 1.

    Source: Duchi et al. 2008, figure 1.
    """
    # Subtracting a constant from all coordinates does not change the projection. Here, the largest
    # coordinate is subtracted, because large coordinates would lose digits.
    points = points - points.amax(dim=1, keepdim=True)
    falling = points.sort(dim=1, descending=True).values
    # If only the k largest coordinates stay positive, excess[k - 1] is subtracted from them.
    ranks = torch.arange(1, points.shape[1] + 1, device=points.device)
    excess = (falling.cumsum(dim=1) - 1) / ranks
    # With NaN, no coordinate stays positive. Even then the index must be valid, because an invalid
    # index makes a GPU useless until the process ends.
    last_positive = ((falling > excess).sum(dim=1, keepdim=True) - 1).clamp_min(0)
    return (points - excess.gather(1, last_positive)).clamp_min(0)


def frank_wolfe(gradient: AlphaGradient, *, steps: int) -> Inference:
    """Move the coefficients towards single tasks. Infer the task with the largest coefficient.

    All coefficients start at 1 / T. Step t = 0, 1, ... computes

        alpha <- (1 - gamma_t) alpha + gamma_t e_i,  gamma_t = 2 / (t + 3),

    where i is the task with the smallest slope, and e_i is the vector with 1 for task i and 0
    for all other tasks. No coefficient becomes negative, and their sum stays 1. Because
    gamma_0 < 1, the other tasks keep a part of their coefficients in the first step. With one
    step, the answer is that of one-shot. If slopes or coefficients are equal, the lower task
    number wins.

    Raises:
        ValueError: steps < 1.
        FloatingPointError: a slope is not finite.

    Cost: `steps` gradients.
    Source: Frank and Wolfe 1956; Jaggi 2013, algorithm 1, which has gamma_t = 2 / (t + 2).
    """
    _check_at_least("steps", steps, 1)
    num_tasks, num_queries, evidence = gradient.num_tasks, gradient.num_queries, Evidence()
    # After the steps so far, alpha_i is proportional to 1/T + votes_i, because step t adds t + 2
    # votes to the task that it chooses. Votes are whole numbers. So two coefficients that should be
    # equal are exactly equal, for any order of the steps.
    votes = torch.zeros((1, num_tasks), dtype=torch.int64, device=gradient.device)
    num_votes = 0
    for t in range(steps):
        slopes = gradient((votes + 1 / num_tasks) / (num_votes + 1))
        evidence.see(slopes, num_tasks)
        chosen = slopes.argmin(dim=1, keepdim=True)
        added = torch.full_like(chosen, t + 2)
        votes = votes.expand(num_queries, -1).scatter_add(1, chosen, added)
        num_votes += t + 2
    # Dividing whole numbers of float64 by the same number keeps their order.
    return evidence.answer(two_largest(votes.double() / (num_votes + 1)), steps)


# The keys are the names in names.GRADIENT_ALGORITHMS. bits/infer.py has faster forms of some of
# these algorithms for the CPU.
BY_GRADIENT: Mapping[str, Callable[[AlphaGradient, Options], Inference]] = {
    "one_shot": lambda gradient, _: one_shot(gradient),
    "binary": lambda gradient, options: binary(gradient, options.log_base),
    "gradient_descent": lambda gradient, options: gradient_descent(
        gradient, steps=options.steps, rate=options.rate
    ),
    "frank_wolfe": lambda gradient, options: frank_wolfe(gradient, steps=options.steps),
}
