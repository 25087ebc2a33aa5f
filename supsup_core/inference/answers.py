"""The answers of an inference: for each query, the inferred task, and the runner-up.

Each algorithm ranks the tasks by a score. The task with the smallest score is inferred, and the
task with the second smallest score is the runner-up.

Shape letters: Q queries, T stored tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

NO_TASK = -1  # in place of a runner-up that the algorithm does not know


@dataclass(frozen=True)
class Inference:
    """The result of an inference algorithm, on the CPU.

    Attributes:
        tasks: (Q,) the inferred task of each query, a number from 0 to T - 1.
        runners_up: (Q,) the task with the second best score; NO_TASK if the algorithm does not know
            it.
        margins: (Q,) the score of the runner-up minus the score of the inferred task, at least 0;
            NaN if the algorithm does not know it. The score of one_shot is the slope. The score of
            binary is the slope in the last round. Gradient descent and Frank-Wolfe compare
            coefficients, min_entropy entropies in nats, and max_logit logits.
        num_gradients: number of gradients that were computed per query.
        bits_read_fraction: fraction of the bits of all stored masks that one gradient reads, in
            [0, 1]. Bits that are read only to find the runner-up are not counted.
    """

    tasks: Int64[Tensor, " Q"]
    runners_up: Int64[Tensor, " Q"]
    margins: Float64[Tensor, " Q"]
    num_gradients: int
    bits_read_fraction: float = 1.0

    @classmethod
    def joined(cls, parts: Sequence["Inference"]) -> "Inference":
        """Join the results of several groups of queries, in the order of the groups.

        Args:
            parts: the results, at least one, all of the same algorithm.
        """
        sizes = [len(part.tasks) for part in parts]
        read = sum(p.bits_read_fraction * n for p, n in zip(parts, sizes, strict=True))
        return cls(
            torch.cat([part.tasks for part in parts]),
            torch.cat([part.runners_up for part in parts]),
            torch.cat([part.margins for part in parts]),
            max(part.num_gradients for part in parts),
            read / sum(sizes),
        )


class Best(NamedTuple):
    """The two best tasks of each query, on the device of their scores; see Inference."""

    tasks: Int64[Tensor, " Q"]
    runners_up: Int64[Tensor, " Q"]
    margins: Float64[Tensor, " Q"]


def alone(tasks: Int64[Tensor, " Q"]) -> Best:
    """Make the answers of queries that have no runner-up."""
    margins = torch.full(tasks.shape, nan, dtype=torch.float64, device=tasks.device)
    return Best(tasks, torch.full_like(tasks, NO_TASK), margins)


def two_smallest(scores: Float[Tensor, "Q T"]) -> Best:
    """Find the tasks with the smallest and the second smallest score.

    If scores are equal, the lower task number is first. With one task, no query has a runner-up.

    Args:
        scores: (Q, T) the score of each task. An infinite score stands for no task.
    """
    first = scores.argmin(dim=1, keepdim=True)
    if scores.shape[1] == 1:
        return alone(first[:, 0])
    others = scores.scatter(1, first, inf)
    second = others.argmin(dim=1, keepdim=True)
    least = others.gather(1, second)[:, 0].double()
    return _known(
        Best(first[:, 0], second[:, 0], least - scores.gather(1, first)[:, 0].double()),
        least < inf,
    )


def two_largest(coefficients: Float[Tensor, "Q T"]) -> Best:
    """Find the tasks with the largest and the second largest coefficient.

    If coefficients are equal, the lower task number is first. If only one coefficient is positive,
    the query has no runner-up, because all other tasks are equal.

    Args:
        coefficients: (Q, T) one coefficient per task, at least 0.
    """
    best = two_smallest(-coefficients)
    second = coefficients.gather(1, best.runners_up.clamp_min(0)[:, None])[:, 0]
    return _known(best, second > 0)


def _known(best: Best, is_known: Tensor) -> Best:
    """Replace the runners-up and the margins that are not known."""
    runners_up = torch.where(is_known, best.runners_up, NO_TASK)
    # `where` needs no copy of a number from the host, as a GPU would.
    return Best(best.tasks, runners_up, torch.where(is_known, best.margins, nan))


class Evidence:
    """A record of whether all slopes, entropies or logits of an inference are finite.

    The answers depend on these values. On a GPU, reading a value waits until the GPU has computed
    the value. So the record is read only once, together with the answers.
    """

    def __init__(self) -> None:
        self._flags: list[Tensor] = []
        self._num_candidates: list[int] = []

    def see(self, values: Tensor, num_candidates: int) -> None:
        """Record whether values are finite.

        This method does not wait until the device has computed the values.

        Args:
            values: slopes, entropies or logits, which the answers depend on.
            num_candidates: number of candidate tasks that are left, for the error text.
        """
        self._flags.append(torch.isfinite(values).all())
        self._num_candidates.append(num_candidates)

    def answer(self, best: Best, num_gradients: int) -> Inference:
        """Copy the answers to the CPU, and raise an error if a recorded value is not finite.

        Args:
            best: the answers, on any device.
            num_gradients: number of gradients per query.

        Raises:
            FloatingPointError: a value that `see` has recorded is NaN or infinite.
        """
        # Task numbers are exact in float64.
        parts = [part.double() for part in (*best, *(flag[None] for flag in self._flags))]
        told = torch.cat(parts).cpu()
        tasks, runners_up, margins = told[: 3 * len(best.tasks)].unflatten(0, (3, -1))
        flags = told[3 * len(best.tasks) :].tolist()
        for flag, num_candidates in zip(flags, self._num_candidates, strict=True):
            if not flag:
                raise not_finite(num_candidates)
        return Inference(tasks.long(), runners_up.long(), margins, num_gradients)


def not_finite(num_candidates: int) -> FloatingPointError:
    """Make the error for a slope, an entropy or a logit that is NaN or infinite."""
    return FloatingPointError(
        f"evidence must be finite, got NaN or infinity with {num_candidates} candidates left: "
        "check the images and the weights"
    )
