"""Independent random streams. The name of a stream is (seed, role, *index).

The draws of a stream depend only on the stream's name. They do not depend on the
number of tasks, on the order of work, or on the process that draws. NumPy makes every
draw on the CPU, so the draws are the same for every training device.
"""

from enum import IntEnum

import numpy as np
from jaxtyping import UInt64


class Role(IntEnum):
    """The purpose of a random stream.

    The random draws of stored runs depend on these numbers. So never use a number again for another
    purpose.
    """

    WEIGHTS = 1  # index: layer
    SCORES = 2  # index: task, layer
    BATCHES = 3  # index: block or task, epoch
    PERMUTATION = 4  # index: task
    EVALUATION_ORDER = 5  # index: task
    DISTRACTORS = 6  # index: distractor
    CUES = 7  # index: task, kind of cue
    CLASSES = 8  # no index
    AUGMENTATION = 9  # index: task, step
    SHUFFLES = 10  # index: shuffle, tensor
    TRANSFER = 11  # index: task
    CONTEXTS = 16  # index: task, tensor
    MAGNITUDES = 20  # index: tensor
    REDRAWS = 21  # index: task, step, tensor
    CANDIDATES = 22  # index: task, candidate, tensor


def stream(seed: int, role: Role, *index: int) -> np.random.Generator:
    """Open the random stream with the name (seed, role, *index).

    Args:
        seed: the run's seed, >= 0.
        role: the purpose of the draws.
        index: numbers >= 0 that distinguish the streams of a role. The comments in
            Role list the numbers that each role needs.

    Returns:
        A generator at the start of the stream. Streams with different names are
        independent, because NumPy's SeedSequence hashes the whole name. This is also
        true for similar seeds, such as s and s + 1.

    Raises:
        ValueError: the seed or an index is negative.
    """
    return np.random.Generator(np.random.Philox(_name(seed, role, *index)))


def key(seed: int, role: Role, *index: int) -> UInt64[np.ndarray, "2"]:
    """Return the key of the generator Philox for the stream (seed, role, *index).

    A GPU can make the draws of the stream from this key, without the generator.

    Raises:
        ValueError: the seed or an index is negative.
    """
    return _name(seed, role, *index).generate_state(2, np.uint64)


def _name(seed: int, role: Role, *index: int) -> np.random.SeedSequence:
    if seed < 0 or any(i < 0 for i in index):
        raise ValueError(f"seed and index must be >= 0, got seed={seed}, index={index}")
    return np.random.SeedSequence(entropy=seed, spawn_key=(int(role), *index))
