"""Inference among masks that lie in several places: each holds a part and names its leader.

The superposition is the sum of the parts' counters, so every part can take the same
gradient; a query's answer is the leader with the smallest product. Products are exact, so
the exact answer is that of one place with all masks. A ranked one may differ: each part drops
tasks that lie behind its own leader.

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
    """What one part answers.

    Attributes:
        tasks: of each query the part's task with the smallest product.
        products: of these.
        bits_read_fraction: of the part's bits.
    """

    tasks: Int64[np.ndarray, " Q"]
    products: Float64[np.ndarray, " Q"]
    bits_read_fraction: float

    @classmethod
    def joined(cls, some: Sequence["Leaders"]) -> "Leaders":
        """Of queries that were answered some at a time."""
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
    """First mask of each part, and the one after its last: as even as can be."""
    ends = [num_masks * i // num_parts for i in range(num_parts + 1)]
    return list(pairwise(ends))


def leaders(
    part: BitInference, first: int, queries: Sequence[Evidence], *, ranked: bool = False
) -> Leaders:
    """Let a part answer.

    Args:
        part: its masks, superposed with those of all parts (BitInference.superpose).
        first: task of its first mask.
        queries: their evidence, as the part gave it.
        ranked: from the strongest evidence first, instead of exactly.
    """
    found = part.leaders(queries, ranked=ranked)
    pairs = zip(queries, found, strict=True)
    return Leaders(
        np.array([one.task for one in found]) + first,
        np.array([part.product(evidence, one.task) for evidence, one in pairs]),
        float(np.mean([one.bits_read_fraction for one in found])),
    )


def merge(parts: Sequence[Leaders]) -> Int64[np.ndarray, " Q"]:
    """The task with the smallest product over all parts; the lowest among equals.

    Args:
        parts: in the order of their tasks.
    """
    best = np.stack([part.products for part in parts]).argmin(axis=0)
    tasks = np.stack([part.tasks for part in parts])
    return np.asarray(tasks[best, np.arange(tasks.shape[1])])
