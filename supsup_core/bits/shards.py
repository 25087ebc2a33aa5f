"""Infer tasks among masks that are split into parts, for example over several actors.

The sum of the parts' counts of ones gives the superposition of all masks. So every part can compute
the same gradient. For each query, each part finds its leader: the task with the smallest product
of mask and evidence, among the tasks of this part. The answer is the leader with the smallest
product, among the leaders of all parts. Products are exact, so the answer of an exact scan does not
depend on the split. The answer of a ranked scan may depend on the split, because each part compares
its tasks with its own leader only.

Shape letters: Q queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, nan

import numpy as np
import torch
from jaxtyping import Float64, Int64

from supsup_core.bits.evidence import Evidence
from supsup_core.bits.infer import BitInference
from supsup_core.inference.answers import NO_TASK, Inference


@dataclass(frozen=True)
class Leaders:
    """The leaders of one part of the masks.

    For each query, the leader is the task of this part whose mask has the smallest product with the
    query's evidence. The runner-up is the task of this part with the second smallest product.

    Attributes:
        tasks: (2, Q) task numbers of each query's leader and runner-up. If the part has one task,
            the runner-up is NO_TASK.
        products: (2, Q) products of their masks and the query's evidence. Without a runner-up,
            the second product is infinity.
        bits_read_fraction: a query reads this fraction of the part's mask bits (the mean over the
            queries).
    """

    tasks: Int64[np.ndarray, "2 Q"]
    products: Float64[np.ndarray, "2 Q"]
    bits_read_fraction: float

    @classmethod
    def joined(cls, some: Sequence["Leaders"]) -> "Leaders":
        """Join the leaders of several groups of queries, in the order of the groups."""
        return cls(
            np.concatenate([one.tasks for one in some], axis=1),
            np.concatenate([one.products for one in some], axis=1),
            float(
                np.average(
                    [one.bits_read_fraction for one in some],
                    weights=[one.tasks.shape[1] for one in some],
                )
            ),
        )


def part_bounds(num_masks: int, num_parts: int) -> list[tuple[int, int]]:
    """Split masks into parts whose sizes differ by at most 1.

    Returns:
        For each part, the index of its first mask and the index after its last mask.
    """
    ends = [num_masks * i // num_parts for i in range(num_parts + 1)]
    return list(pairwise(ends))


def leaders(
    part: BitInference, first: int, queries: Sequence[Evidence], *, ranked: bool = False
) -> Leaders:
    """Find, for each query, the leader of one part: the task with the smallest product.

    Args:
        part: the part's masks. Its method `superpose` must have set the superposition of all parts.
        first: task number of the part's first mask.
        queries: the evidence of each query, computed by this part.
        ranked: if true, use the ranked scan, which reads the largest evidence first and is
            approximate. If false, use the exact scan.
    """
    found = part.leaders(queries, ranked=ranked)
    tasks = np.array([(one.task, one.runner_up) for one in found]).T
    products = np.full(tasks.shape, inf)
    for i, evidence in enumerate(queries):
        own = tasks[tasks[:, i] != NO_TASK, i]
        products[: len(own), i] = part.products(evidence, own)
    return Leaders(
        np.where(tasks == NO_TASK, NO_TASK, tasks + first),
        products,
        float(np.mean([one.bits_read_fraction for one in found])),
    )


def merge(parts: Sequence[Leaders]) -> Inference:
    """Find, for each query, the two tasks with the smallest products among all leaders.

    If products are equal, the lowest task number is first.

    Args:
        parts: the leaders and runners-up of each part. The parts have different numbers of masks,
            which the result's `bits_read_fraction` does not consider.
    """
    tasks = np.concatenate([part.tasks for part in parts])
    products = np.concatenate([part.products for part in parts])
    order = np.lexsort((tasks, products), axis=0)[:2]
    (first, second), (least, other) = (
        np.take_along_axis(both, order, axis=0) for both in (tasks, products)
    )
    return Inference(
        torch.from_numpy(first),
        torch.from_numpy(second),
        torch.from_numpy(np.where(second == NO_TASK, nan, other - least)),
        num_gradients=1,
    )
