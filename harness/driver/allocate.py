"""The allocation stage: one learner follows a stream of tasks and allocates masks.

A unit is the part of the stream from the allocation of one mask to the allocation of the next mask.
The units follow one another, so at most one unit is in progress.
"""

import logging
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

from harness.data.dataset import Dataset
from harness.driver.protocol import Shared, Submission, TableUnit
from harness.driver.work import Work
from harness.executors.protocol import Outcome, Pool
from harness.plan.pools import TRAIN
from harness.plan.units import StreamUnit
from harness.run.seen import SeenStream
from harness.workers.following import FollowedPart, FollowWorker, MasksMissing
from harness.workers.rehearsal import training_rehearsals

logger = logging.getLogger("harness")

_BAR = "following the stream"


class Allocate:
    """The stage that follows the stream. The worker is not told which task a batch belongs to.

    The results of a unit are on disk before the next unit begins. First the decisions are written,
    and then the mask is committed. After a stop, the learner continues with the first mask that is
    not committed, and makes the same masks and decisions as without the stop.

    Args:
        work: the run in progress.
    """

    does = "follow the stream"

    def __init__(self, work: Work) -> None:
        assert isinstance(work.seen, SeenStream)  # the scenario decides both
        self._work, self._seen = work, work.seen
        self._under_way: StreamUnit | None = None
        self._has_failed = False
        # The worker keeps its masks, so they are sent only to a worker that does not have them.
        self._sends_masks = True

    def is_complete(self) -> bool:
        """Return whether the whole stream is followed."""
        return self._seen.next_unit is None

    def asked(self) -> Sequence[TableUnit]:
        """Return an empty list: the units depend on decisions of the learner, and are unknown."""
        return ()

    def rehearsals(self, data: Dataset) -> Iterable[Callable[[], object]]:
        """See Stage.rehearsals."""
        return () if self.is_complete() else training_rehearsals(self._work.run.spec, data)

    def begin(self, shared: Shared) -> Mapping[str, Pool]:
        """See Stage.begin."""
        config = self._work.config
        allocation = config.allocation
        logger.info(
            "following a stream of %d tasks with recipe %s: products in %s, a decision every %d "
            "batches by the rule %s, at most %d masks",
            *(config.tasks, config.train.name, config.train.dtype),
            *(allocation.every, allocation.rule, allocation.budget),
        )
        if not self.is_complete():
            self._work.display.add(
                _BAR, config.tasks, self._seen.num_tasks, "tasks", "own task of the mask"
            )
            self._tell()
        return {TRAIN: Pool(FollowWorker, (shared.spec, shared.train, shared.test))}

    def due(self, seen: Container[int]) -> Sequence[Submission]:
        """See Stage.due."""
        unit = self._seen.next_unit
        if unit is None or self._under_way is not None or self._has_failed:
            return []
        self._under_way = unit
        sent = unit.mask if self._sends_masks and unit.mask else None
        return [Submission(TRAIN, unit, num_masks=sent)]

    def keep(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """See Stage.keep."""
        (outcome,) = outcomes
        self._under_way = None
        if outcome.error is not None:
            self._has_failed = True  # no later part of the stream can be followed
            return outcomes
        self._sends_masks = isinstance(outcome.result, MasksMissing)
        if self._sends_masks:
            return []
        self._store(outcome.unit, outcome.result)
        return outcomes

    def show(self, running: Mapping[str, float]) -> None:
        """Do nothing, because the bar counts only tasks whose batches are all followed."""

    def _store(self, unit: StreamUnit, part: FollowedPart) -> None:
        """Write the decisions, and then commit the mask."""
        self._work.files.keep(unit, part.decisions)
        masks = self._work.masks
        if unit.mask not in masks:  # only the decisions may have been lost
            num_committed = masks.commit([(unit.name, part.tasks, part.row)])
            self._work.metrics.committed(num_committed, len(masks), masks.accuracy)
        self._seen.add(unit.mask, part.decisions)
        for warning in part.warnings:
            logger.warning("%s", warning)
        self._tell()

    def _tell(self) -> None:
        self._work.display.update(_BAR, self._seen.num_tasks, self._work.masks.accuracy)
