"""Masks that no task was trained for, so that inference among many can be measured.

A distractor keeps each weight with the share of the trained masks that keep it, drawn
independently: as dense as they are everywhere, and without what tells tasks apart.

Shape letters: T masks, R bytes and F = 8 R bits of a packed row, D bit planes.
"""

import numpy as np
from jaxtyping import Int32, UInt8, UInt64

from supsup_core.streams import Role, stream

_DIGITS = 8  # densities are rounded to multiples of 1/256


class Distractors:
    """Draws distractors; each depends on the seed, its number and the densities alone.

    Args:
        counts: how many trained masks have a one at each bit of a packed row.
        num_masks: how many trained masks there are.
        seed: of the run.

    Raises:
        ValueError: no mask.
    """

    def __init__(self, counts: Int32[np.ndarray, " F"], num_masks: int, seed: int) -> None:
        if num_masks < 1:
            raise ValueError(f"num_masks must be >= 1, got {num_masks}")
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
        """Draw the distractors from number `first` on into packed rows."""
        num_words = self._planes.shape[1]
        for number, row in enumerate(out, start=first):
            bits = stream(self._seed, Role.DISTRACTORS, number).bit_generator
            random = bits.random_raw(_DIGITS * num_words).reshape(_DIGITS, num_words)
            # A binary fraction's digits, lowest first: each halves the chance so far and
            # adds a half where the digit is one.
            words = np.zeros(num_words, np.uint64)
            for coin, plane in zip(random, self._planes, strict=True):
                words = (words & coin) | (plane & (words ^ coin))
            row.view(np.uint64)[:] = words
