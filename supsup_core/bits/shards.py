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

import numpy as np
from jaxtyping import Float64, Int64

from supsup_core.bits.evidence import Evidence
from supsup_core.bits.infer import BitInference


@dataclass(frozen=True)
class Leaders:
    """The leaders of one part of the masks.

    For each query, the leader is the task of this part whose mask has the smallest product with the
    query's evidence.

    Attributes:
        tasks: (Q,) task number of each query's leader.
        products: (Q,) product of the leader's mask and the query's evidence.
        bits_read_fraction: a query reads this fraction of the part's mask bits (the mean over the
            queries).
    """

    tasks: Int64[np.ndarray, " Q"]
    products: Float64[np.ndarray, " Q"]
    bits_read_fraction: float

    @classmethod
    def joined(cls, some: Sequence["Leaders"]) -> "Leaders":
        """Join the leaders of several groups of queries, in the order of the groups."""
        return cls(
            np.concatenate([one.tasks for one in some]),
            np.concatenate([one.products for one in some]),
            float(
                np.average(
                    [one.bits_read_fraction for one in some],
                    weights=[len(one.tasks) for one in some],
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
    pairs = zip(queries, found, strict=True)
    return Leaders(
        np.array([one.task for one in found]) + first,
        np.array([part.product(evidence, one.task) for evidence, one in pairs]),
        float(np.mean([one.bits_read_fraction for one in found])),
    )


def merge(parts: Sequence[Leaders]) -> Int64[np.ndarray, " Q"]:
    """Find, for each query, the leader with the smallest product among the leaders of all parts.

    If products are equal, the lowest task number wins.

    Args:
        parts: the leaders of each part. The part with the lowest task numbers comes first.

    Returns:
        (Q,) the task number of each query's answer.
    """
    best = np.stack([part.products for part in parts]).argmin(axis=0)
    tasks = np.stack([part.tasks for part in parts])
    return np.asarray(tasks[best, np.arange(tasks.shape[1])])
