"""Infer which stored task a batch belongs to, without being told.

Four algorithms read the gradient of an objective in the coefficients of the
superposition: one-shot takes its minimum, binary halves the candidates until one
is left, gradient descent and Frank-Wolfe move the coefficients step by step. Two
more run every mask forward and serve as comparison.

The algorithms know no network: they call a gradient (slopes.py), which maps
coefficients (A, T), A = Q or 1 where all queries share them, to d objective / d alpha
(Q, T).

Shape letters: Q queries, T stored tasks, A coefficient vectors.
Source: Wortsman et al. 2020, arXiv:2006.14769, sections 3.3 and B. Unlike the
authors' code, only stored tasks are candidates, and ties do not stall binary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@runtime_checkable  # so that the tests can check annotations
class AlphaGradient(Protocol):
    """The gradient of an objective in the coefficients, for a batch of queries."""

    num_queries: int
    num_tasks: int
    device: torch.device

    def __call__(self, alphas: Float[Tensor, "A T"]) -> Float[Tensor, "Q T"]:
        """Objective units (nats, for the entropy) per unit of coefficient."""
        ...


@dataclass(frozen=True)
class Inference:
    """What an algorithm found.

    Attributes:
        tasks: the inferred task of each query, in [0, T).
        num_gradients: gradients taken for each query.
        bits_read_fraction: bits read by one gradient, of those of the stored masks.
    """

    tasks: Int64[Tensor, " Q"]
    num_gradients: int
    bits_read_fraction: float = 1.0


@dataclass(frozen=True)
class Options:
    """What the algorithms by gradient can be told; each reads its own.

    Attributes:
        log_base: of binary: a round keeps about one of log_base candidates.
        steps: of gradient descent and Frank-Wolfe.
        rate: of gradient descent.
    """

    log_base: int = 2
    steps: int = 10
    # Brings H to a corner of the simplex in 10 steps, and G most of the way. Tried on MLPs of 64
    # units with 40 and 250 permutations of the digits, one image a query: 0.1 to 1 found no fewer
    # tasks than one-shot; 3 jumps between corners, 0.01 hardly leaves the middle.
    rate: float = 0.3


def check_finite(evidence: Tensor, num_candidates: int) -> None:
    """Refuse evidence that is not finite.

    Raises:
        FloatingPointError: naming how many candidates were left.
    """
    if not torch.isfinite(evidence).all():
        raise FloatingPointError(f"evidence not finite with {num_candidates} candidates left")


def _check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be >= {least}, got {value}")


def one_shot(gradient: AlphaGradient) -> Inference:
    """Take the task whose growth would lower the objective fastest, from one gradient.

    Raises:
        FloatingPointError: a slope that is not finite.
    """
    num_tasks = gradient.num_tasks
    slopes = gradient(torch.full((1, num_tasks), 1 / num_tasks, device=gradient.device))
    check_finite(slopes, num_tasks)
    return Inference(slopes.argmin(dim=1), num_gradients=1)


def num_kept(num_left: int, log_base: int) -> int:
    """Candidates that a round of binary keeps: num_left / log_base, rounded up.

    Raises:
        ValueError: log_base < 2, with which no round would drop a candidate.
    """
    _check_at_least("log_base", log_base, 2)
    return (num_left - 1) // log_base + 1


def binary(gradient: AlphaGradient, log_base: int = 2) -> Inference:
    """Halve the candidates, or divide them by another log_base, until one is left.

    Each round shares the coefficients among the candidates and keeps those with the
    lowest slopes, `num_kept` of them: with log_base 2 the half, rounded up; with
    log_base >= T one, which is one-shot. Equal slopes favour the candidate that ranked
    higher before, at first the lower task.

    Raises:
        ValueError: log_base < 2.
        FloatingPointError: a candidate's slope that is not finite.

    Cost: ceil(log_b T) gradients, b = log_base.
    """
    _check_at_least("log_base", log_base, 2)
    num_queries, device = gradient.num_queries, gradient.device
    candidates = torch.arange(gradient.num_tasks, device=device).expand(num_queries, -1)
    num_gradients = 0
    while (num_left := candidates.shape[1]) > 1:
        # In the first round all queries have the same candidates, and share one superposition.
        shared = candidates[:1] if num_gradients == 0 else candidates
        alphas = torch.zeros((len(shared), gradient.num_tasks), device=device)
        alphas.scatter_(1, shared, 1 / num_left)
        slopes = gradient(alphas).gather(1, candidates)
        check_finite(slopes, num_left)
        ranking = torch.argsort(slopes, dim=1, stable=True)
        candidates = candidates.gather(1, ranking[:, : num_kept(num_left, log_base)])
        num_gradients += 1
    return Inference(candidates[:, 0].clone(), num_gradients)


def gradient_descent(gradient: AlphaGradient, *, steps: int, rate: float) -> Inference:
    """Descend from equal coefficients on the simplex; take the task with the largest.

        alpha <- alpha - rate * d objective / d alpha

    and then the nearest point of the simplex. One step is one-shot, with any rate that
    float32 does not round away; equal coefficients favour the lower task.

    Raises:
        ValueError: steps < 1, or a rate that is not positive and finite.
        FloatingPointError: a slope that is not finite.

    Cost: `steps` gradients.
    Source: Wortsman et al. 2020, equation 3, where the coefficients "are re-normalized to
        sum to one after each update", not said how; their code has no working form.
        Without it their sum grows, as larger logits have less entropy whatever the task,
        and G may diverge; a division by the sum fails where that is not positive.
    """
    _check_at_least("steps", steps, 1)
    if not 0 < rate < inf:
        raise ValueError(f"rate must be positive and finite, got {rate}")
    num_tasks = gradient.num_tasks
    alphas = torch.full((1, num_tasks), 1 / num_tasks, device=gradient.device)
    for _ in range(steps):
        slopes = gradient(alphas)
        check_finite(slopes, num_tasks)
        alphas = _onto_simplex(alphas - rate * slopes)
    return Inference(alphas.argmax(dim=1), steps)


def _onto_simplex(points: Float[Tensor, "Q T"]) -> Float[Tensor, "Q T"]:
    """The nearest coefficients that are not negative and sum to one.

    Source: Duchi et al. 2008, figure 1.
    """
    # What all coordinates share makes no difference; without it large ones lose no digits.
    points = points - points.amax(dim=1, keepdim=True)
    falling = points.sort(dim=1, descending=True).values
    # To be taken off each, if only the first 1, 2, ... stay positive.
    ranks = torch.arange(1, points.shape[1] + 1, device=points.device)
    excess = (falling.cumsum(dim=1) - 1) / ranks
    last_positive = (falling > excess).sum(dim=1, keepdim=True) - 1
    return (points - excess.gather(1, last_positive)).clamp_min(0)


def frank_wolfe(gradient: AlphaGradient, *, steps: int) -> Inference:
    """Move step by step towards single tasks; take the one with the largest coefficient.

        alpha <- (1 - gamma_t) alpha + gamma_t e_i,  gamma_t = 2 / (t + 3),  t = 0, 1, ...

    where i has the smallest slope. The coefficients stay on the simplex. gamma_0 < 1, so
    that the first step does not forget the other tasks, yet one step is one-shot. Equal
    slopes and equal coefficients favour the lower task.

    Raises:
        ValueError: steps < 1.
        FloatingPointError: a slope that is not finite.

    Cost: `steps` gradients.
    Source: Frank and Wolfe 1956; Jaggi 2013, algorithm 1, with gamma_t = 2 / (t + 2).
    """
    _check_at_least("steps", steps, 1)
    num_tasks = gradient.num_tasks
    # Unrolled, alpha_i is in proportion to 1/T + votes_i, where step t gives t + 2 votes:
    # whole numbers, so that equal coefficients are equal whatever the order of the steps.
    votes = torch.zeros((1, num_tasks), dtype=torch.int64, device=gradient.device)
    num_votes = 0
    for t in range(steps):
        slopes = gradient((votes + 1 / num_tasks) / (num_votes + 1))
        check_finite(slopes, num_tasks)
        votes = votes + (t + 2) * torch.nn.functional.one_hot(slopes.argmin(dim=1), num_tasks)
        num_votes += t + 2
    return Inference(votes.argmax(dim=1), steps)


# By the names of names.GRADIENT_ALGORITHMS; bits/infer.py has some of them for the CPU.
BY_GRADIENT: Mapping[str, Callable[[AlphaGradient, Options], Inference]] = {
    "one_shot": lambda gradient, _: one_shot(gradient),
    "binary": lambda gradient, options: binary(gradient, options.log_base),
    "gradient_descent": lambda gradient, options: gradient_descent(
        gradient, steps=options.steps, rate=options.rate
    ),
    "frank_wolfe": lambda gradient, options: frank_wolfe(gradient, steps=options.steps),
}
