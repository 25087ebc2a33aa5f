"""Independent random streams, each named by (seed, role, *index).

A draw depends on its name alone: not on how many tasks there are, on the order
of work, or on which process draws. Every draw is made by NumPy on the CPU, so
that it is the same whatever device trains.
"""

from enum import IntEnum

import numpy as np


class Role(IntEnum):
    """What a stream is for. The numbers are part of a run's identity: never reuse one."""

    WEIGHTS = 1  # index: layer
    SCORES = 2  # index: task, layer
    BATCHES = 3  # index: block or task, epoch
    PERMUTATION = 4  # index: task
    EVALUATION_ORDER = 5  # index: task
    DISTRACTORS = 6  # index: number
    CUES = 7  # index: task, kind of cue


def stream(seed: int, role: Role, *index: int) -> np.random.Generator:
    """Open the stream named by (seed, role, *index).

    Args:
        seed: of the run, >= 0.
        role: what the draws are for.
        index: which of its kind, each >= 0; their number is fixed by the role.

    Returns:
        A generator at the stream's beginning. Streams of different names are
        independent (NumPy's SeedSequence hashes the whole name), so seed s and
        seed s + 1 share nothing.

    Raises:
        ValueError: a negative seed or index.
    """
    if seed < 0 or any(i < 0 for i in index):
        raise ValueError(f"seed and index must be >= 0, got seed={seed}, index={index}")
    name = np.random.SeedSequence(entropy=seed, spawn_key=(int(role), *index))
    return np.random.Generator(np.random.Philox(name))
