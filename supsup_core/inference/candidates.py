"""Slopes of a growing set of masks, and of references, for one batch at a time.

A learner compares a batch with its frozen masks, with the mask in training, and with references
(allocation.py). All of them have the same coefficient in one superposition.

Shape letters: C candidates, K images of a batch, R bytes of a packed row.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from supsup_core.inference.allocation import CandidateSlopes, Rule
from supsup_core.states.shuffled import Shuffles

Row = UInt8[np.ndarray, " R"]


@runtime_checkable  # lets tests check annotations at run time
class MeanSlopes(Protocol):
    """A function that computes slopes in a superposition with equal coefficients."""

    def __call__(
        self, rows: UInt8[np.ndarray, "C R"], images: Float[Tensor, "K ..."], num_fixed: int
    ) -> Float[Tensor, " C"]:
        """Compute the slope of each of C packed states, for one batch.

        Args:
            rows: (C, R) the packed states, at least one.
            images: (K, *shape) the normalised images of the batch.
            num_fixed: the first `num_fixed` rows are the same in all later calls.
        """
        ...


class Candidates:
    """The masks of a learner.

    Args:
        slopes: the function that computes the slopes.
        rule: the rule that needs the slopes. It says which references take part.
        shuffles: the rules that make shuffled copies, at least as many as the rule has references.
        untrained: a function that takes the number of a mask, and returns its packed row before the
            first training step.
        capacity: largest number of masks.
        row_bytes: R, the number of bytes of a packed row.
    """

    def __init__(
        self,
        slopes: MeanSlopes,
        rule: Rule,
        shuffles: Shuffles,
        untrained: Callable[[int], Row],
        capacity: int,
        row_bytes: int,
    ) -> None:
        self._slopes, self._rule = slopes, rule
        self._shuffles, self._untrained = shuffles, untrained
        # The first rows are the frozen masks. The other candidates of a decision follow them, and
        # the next decision replaces them.
        most = max(sum(rule.num_references(f, 1)) for f in range(capacity + 1))
        self._rows = np.zeros((capacity + 1 + most, row_bytes), np.uint8)
        self.num_frozen = 0

    def freeze(self, rows: UInt8[np.ndarray, "_ R"]) -> None:
        """Add frozen masks, in the order of their numbers."""
        self._rows[self.num_frozen : self.num_frozen + len(rows)] = rows
        self.num_frozen += len(rows)

    def slopes(self, images: Float[Tensor, "K ..."], training: Row | None) -> CandidateSlopes:
        """Compute the slopes of all candidates for one batch.

        Args:
            images: (K, *shape) the normalised images of the batch.
            training: (R,) the packed state of the mask in training; None if all masks are frozen.

        Raises:
            FloatingPointError: a slope is not finite.
        """
        num_frozen, own = self.num_frozen, [] if training is None else [training]
        by_frozen, by_training = self._references(training)
        parts = [np.zeros((0, self._rows.shape[1]), np.uint8), *(row[None] for row in own)]
        extra = np.concatenate([*parts, by_frozen, by_training])
        end = num_frozen + len(extra)
        self._rows[num_frozen:end] = extra
        found = self._slopes(self._rows[:end], images, num_frozen)
        sizes = [num_frozen, len(own), len(by_frozen), len(by_training)]
        return CandidateSlopes(*found.split(sizes))

    def _references(self, training: Row | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the packed references for the frozen masks, and for the mask in training."""
        num_frozen, num_training = self.num_frozen, int(training is not None)
        for_frozen, for_training = self._rule.num_references(num_frozen, num_training)
        none = np.zeros((0, self._rows.shape[1]), np.uint8)
        if self._rule.references == "untrained":
            first = num_frozen + num_training
            rows = [self._untrained(first + i)[None] for i in range(for_frozen)]
            return np.concatenate([none, *rows]), none
        # The masks take turns. A mask's copies use different shuffles.
        turns = np.arange(for_frozen) % max(1, num_frozen)
        by_frozen = self._shuffles.of(self._rows[turns], range(for_frozen))
        if training is None:
            return by_frozen, none
        copies = np.broadcast_to(training, (for_training, len(training)))
        return by_frozen, self._shuffles.of(copies, range(for_training))
