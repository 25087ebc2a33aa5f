"""Independent random streams, each named by (seed, role, *index).

The draws of a stream depend on the stream's name alone. They do not depend on the
number of tasks, on the order of work, or on the process that draws. NumPy makes every
draw on the CPU, so the draws are the same for every training device.
"""

from enum import IntEnum

import numpy as np


class Role(IntEnum):
    """The purpose of a stream. A run's identity includes these numbers: never reuse a number."""

    WEIGHTS = 1  # index: layer
    SCORES = 2  # index: task, layer
    BATCHES = 3  # index: block or task, epoch
    PERMUTATION = 4  # index: task
    EVALUATION_ORDER = 5  # index: task
    DISTRACTORS = 6  # index: number of the distractor
    CUES = 7  # index: task, kind of cue


def stream(seed: int, role: Role, *index: int) -> np.random.Generator:
    """Open the stream named by (seed, role, *index).

    Args:
        seed: the run's seed, >= 0.
        role: the purpose of the draws.
        index: numbers >= 0 that tell the streams of a role apart. The comments of
            Role list the numbers that each role needs.

    Returns:
        A generator at the start of the stream. Streams with different names are
        independent, because NumPy's SeedSequence hashes the whole name. So the
        streams of seed s and of seed s + 1 share nothing.

    Raises:
        ValueError: the seed or an index is negative.
    """
    if seed < 0 or any(i < 0 for i in index):
        raise ValueError(f"seed and index must be >= 0, got seed={seed}, index={index}")
    name = np.random.SeedSequence(entropy=seed, spawn_key=(int(role), *index))
    return np.random.Generator(np.random.Philox(name))
