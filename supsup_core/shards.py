"""Inference among masks that lie in several places: each holds a part and names its leader.

The superposition is the sum of the parts' counters, so every part can take the same
gradient; a query's answer is the leader with the smallest product. Products are exact, so
the answer is that of one place with all masks.

Shape letters: Q queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from supsup_core.bit_inference import BIT_ALGORITHMS, BitInference
from supsup_core.inference import Options
from supsup_core.objectives import Objective

# By the names of their algorithms: those that need one gradient.
SHARDED_ALGORITHMS = ("one_shot", "one_shot_ranked")


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


def part_bounds(num_masks: int, num_parts: int) -> list[tuple[int, int]]:
    """First mask of each part, and the one after its last: as even as can be."""
    ends = [num_masks * i // num_parts for i in range(num_parts + 1)]
    return list(pairwise(ends))


def leaders(
    part: BitInference,
    first: int,
    images: Float32[Tensor, "Q K P"],
    objective: Objective,
    algorithm: str,
) -> Leaders:
    """Let a part answer.

    Args:
        part: its masks, superposed with those of all parts (BitInference.superpose).
        first: task of its first mask.
        images: the queries.
        objective: to minimise.
        algorithm: one of SHARDED_ALGORITHMS.
    """
    found = BIT_ALGORITHMS[algorithm](part, images, objective, Options())
    products = part.products(images, objective, found.tasks)
    return Leaders(found.tasks.numpy() + first, products, found.bits_read_fraction)


def merge(parts: Sequence[Leaders]) -> Int64[np.ndarray, " Q"]:
    """The task with the smallest product over all parts; the lowest among equals.

    Args:
        parts: in the order of their tasks.
    """
    best = np.stack([part.products for part in parts]).argmin(axis=0)
    tasks = np.stack([part.tasks for part in parts])
    return np.asarray(tasks[best, np.arange(tasks.shape[1])])
