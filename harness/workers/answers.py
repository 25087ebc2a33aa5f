"""The answers to the queries of an evaluation unit, and the cost of inference."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64

from harness.plan.evaluation import COMPARED_PER_EVALUATION
from supsup_core.inference.answers import Inference, alone


@dataclass(frozen=True, eq=False)  # == of tensors has no single truth value
class Answers:
    """The answers to a unit's queries, and the cost of inference.

    Attributes:
        found: the inferred tasks and the runners-up, in the order of the batches.
            `bits_read_fraction` is a mean over the queries.
        seconds: the mean time of one inference, in seconds.
        device: the device that inferred the tasks.
        agreement: for one_shot_ranked, the fraction of answers that equal the answers of one_shot.
            Only the answers that `compared` chooses are compared. None for other algorithms.
    """

    found: Inference
    seconds: float
    device: torch.device
    agreement: float | None = None

    @property
    def tasks(self) -> list[int]:
        """The inferred task of each query."""
        tasks: list[int] = self.found.tasks.tolist()
        return tasks

    @classmethod
    def given(cls, tasks: list[int], device: torch.device) -> "Answers":
        """Return the true tasks of the batches as answers, without any inference."""
        found = Inference(*alone(torch.tensor(tasks)), num_gradients=0, bits_read_fraction=0.0)
        return cls(found, 0.0, device)


def compared(num_queries: int) -> Int64[np.ndarray, " C"]:
    """Choose the queries of a unit for which one_shot_ranked is compared with one_shot.

    Args:
        num_queries: the number of queries of the unit.

    Returns:
        (C,) the indices of the C chosen queries, evenly spaced.
    """
    count = min(num_queries, COMPARED_PER_EVALUATION)
    return np.arange(count) * num_queries // count
