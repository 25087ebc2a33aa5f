"""Distractors: random masks without a task. With them, inference among many masks can be measured.

Training many masks takes long, and drawing distractors does not. A distractor keeps each weight
with a probability: the fraction of the trained masks that keep this weight. Each bit is drawn
independently. So distractors have the density of the trained masks at every weight, but no
information about any task.

Distractors exist only for states with one plane per tensor, whose bits are the gains. Coat planes
and negative planes are correlated with other planes, and independent draws would lose these
correlations.

Shape letters: T masks, R bytes and F = 8 R bits of a packed row, D binary digits of a probability,
V 64-bit words of a packed row.
"""

import numpy as np
from jaxtyping import Int32, UInt8, UInt64

from supsup_core.streams import Role, stream

_DIGITS = 8  # probabilities are rounded to multiples of 1/256


class Distractors:
    """A source of distractors: random masks that keep each weight as often as trained masks do.

    A distractor depends only on the seed, on the index of the distractor and on the trained masks.

    Args:
        counts: (F,) for each of the F bits of a packed row, the number of trained masks that have
            a one.
        num_masks: number of trained masks.
        seed: the run's seed.

    Raises:
        ValueError: num_masks < 1.
    """

    def __init__(self, counts: Int32[np.ndarray, " F"], num_masks: int, seed: int) -> None:
        if num_masks < 1:
            raise ValueError(f"num_masks must be >= 1, got {num_masks}: train one task first")
        largest = (1 << _DIGITS) - 1
        shares = np.rint(counts / num_masks * (1 << _DIGITS)).clip(0, largest).astype(np.uint8)
        self._planes: UInt64[np.ndarray, "D V"] = np.stack(
            [
                np.packbits((shares >> digit) & 1, bitorder="little").view(np.uint64)
                for digit in range(_DIGITS)
            ]
        )
        self._seed = seed

    def draw(self, first: int, out: UInt8[np.ndarray, "T R"]) -> None:
        """Draw T distractors into packed rows.

        Args:
            first: index of the first distractor. The next rows get the next indices.
            out: (T, R) the packed rows to overwrite.
        """
        num_words = self._planes.shape[1]
        for number, row in enumerate(out, start=first):
            bits = stream(self._seed, Role.DISTRACTORS, number).bit_generator
            random = bits.random_raw(_DIGITS * num_words).reshape(_DIGITS, num_words)
            # The probability of a one is a binary fraction. The loop reads its digits, the lowest
            # digit first. Each digit halves the probability so far, and adds 1/2 if it is one.
            words = np.zeros(num_words, np.uint64)
            for coin, plane in zip(random, self._planes, strict=True):
                words = (words & coin) | (plane & (words ^ coin))
            row.view(np.uint64)[:] = words
