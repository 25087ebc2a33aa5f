"""A learner that follows a stream: it is told the task neither in training nor in inference.

Every few batches, the learner infers to which of its masks the present batch belongs. The learner
then uses this mask, or allocates a new mask if the batch belongs to none of them. A mask trains
from its allocation until the learner first uses another mask. After that the mask is frozen: if the
learner uses it again, it does not train.

Shape letters: R bytes of a packed row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from supsup_core.inference.allocation import Rule
from supsup_core.inference.candidates import Candidates
from supsup_core.states.layout import StateLayout, TaskState
from supsup_core.training.protocol import OnStep, Trainer
from supsup_core.training.stream import TaskStream


@dataclass(frozen=True)
class Decision:
    """A decision of the learner: the mask that it uses until its next decision.

    Attributes:
        batch: number of the batch from which the task was inferred.
        mask: number of the mask that is used from this batch on. None: a new mask would be needed,
            but the budget is used up, so the batches are skipped.
        allocates: whether the mask is new.
        score: the score of the rule; None for the first batch, because no mask exists yet.
        threshold: the threshold of the rule; None for the first batch.
        num_masks: number of masks before the decision.
    """

    batch: int
    mask: int | None
    allocates: bool
    score: float | None
    threshold: float | None
    num_masks: int


@dataclass(frozen=True, eq=False)  # == of arrays has no single truth value
class FollowedMask:
    """A mask that the learner allocated, trained and froze.

    Attributes:
        state: the state of the mask.
        row: (R,) the packed state.
        steps: number of batches on which the mask trained. These batches follow each other.
        decisions: the decisions after the allocation of the mask, up to the allocation of the next
            mask or to the end of the stream. In between, the stream uses frozen masks.
    """

    state: TaskState
    row: UInt8[np.ndarray, " R"]
    steps: int
    decisions: Sequence[Decision]


class Learner:
    """A learner on a stream.

    Args:
        stream: the stream.
        trainer: the trainer of the masks.
        candidates: the frozen masks. The learner adds each mask that it freezes.
        rule: the rule that decides whether a batch needs a new mask.
        layout: the layout of a packed state.
        every: number of batches from one decision to the next.
        budget: largest number of masks.
    """

    def __init__(
        self,
        stream: TaskStream,
        trainer: Trainer,
        candidates: Candidates,
        rule: Rule,
        layout: StateLayout,
        *,
        every: int,
        budget: int,
    ) -> None:
        self.candidates = candidates
        self._stream, self._trainer, self._rule = stream, trainer, rule
        self._layout, self._every, self._budget = layout, every, budget

    def follow(self, first: int, on_step: OnStep | None = None) -> FollowedMask:
        """Allocate a mask, and follow the stream up to the allocation of the next mask.

        The result depends only on the stream, on the frozen masks and on `first`. Mask i starts
        from the same first scores as task i in a run in which the task is given. So if mask i
        trains on all batches of task i and on no other batches, it is the same mask, bit for bit,
        as in such a run with one task per block.

        Args:
            first: number of the batch at which the mask is allocated.
            on_step: a function that is called after each training step, with the number of finished
                steps.

        Raises:
            FloatingPointError: a slope is not finite.
        """
        end, every = self._stream.num_batches, self._every
        number = self.candidates.num_frozen
        after = frozenset([*range(every, end - first, every), end - first])
        task = replace(self._stream.task(first), task_id=number)
        trained = self._trainer.stages(
            [task], after, on_step=on_step, batches=self._stream.batches(first)
        )
        decisions = [Decision(0, 0, True, None, None, 0)] if first == 0 else []
        at, is_training = first, True
        while at < end:
            at = min(at + every, end)
            if is_training:  # the trainer takes steps only when the next state is requested
                (state,), _ = next(trained)
                row, steps = self._layout.pack([state])[0], at - first
            if at == end:
                break
            decisions.append(self._decide(at, row if is_training else None))
            if is_training and decisions[-1].mask != number:
                is_training = False
                self.candidates.freeze(row[None])
            if decisions[-1].allocates:
                break
        if is_training:
            self.candidates.freeze(row[None])
        return FollowedMask(state, row, steps, decisions)

    def _decide(self, batch: int, training: UInt8[np.ndarray, " R"] | None) -> Decision:
        """Infer to which mask a batch belongs.

        Args:
            batch: number of the batch.
            training: (R,) the packed state of the mask in training; None if all masks are frozen.
        """
        num_masks = self.candidates.num_frozen + (training is not None)
        slopes, before = self.candidates.slopes(self._stream.images(batch), training), None
        if training is not None and self._rule.looks_back:
            last = self._stream.images(batch - self._every)
            before = self.candidates.slopes(last, training)
        verdict = self._rule(slopes, before)
        allocates = verdict.mask is None and num_masks < self._budget
        mask = num_masks if allocates else verdict.mask
        return Decision(batch, mask, allocates, verdict.score, verdict.threshold, num_masks)
