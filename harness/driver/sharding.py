"""Evaluation of masks that do not fit into one actor: several actors (shards) hold parts of them.

Each shard has a pool with one actor. The work units of a checkpoint have three steps:

1. Every shard counts the ones of its part at each bit.
2. Every shard gets the sum of the counts, and answers the queries with the leaders of its part.
3. One shard scores the batches with the merged answers of all shards.

The exact answers equal the answers of one actor that has all masks on the CPU
(supsup_core/bits/shards.py).
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from harness.driver.protocol import Submission
from harness.executors.protocol import Outcome
from harness.plan.units import EvaluationUnit
from harness.workers.shard import CountUnit, LeadersUnit, PartAnswers, ScoreUnit, agreed
from supsup_core.bits.shards import part_bounds

ReadRows = Callable[[Sequence[int]], np.ndarray]  # task numbers -> packed rows of these tasks

# Number of evaluation units under way at a time. Three keep every shard busy. With a small number
# the first rows are kept early, and few answers wait in memory.
_ASKED_AT_ONCE = 3


def shard_pool(place: int) -> str:
    """Name the pool whose only actor holds part number `place`."""
    return f"shard-{place}"


@dataclass
class _Checkpoint:
    """The checkpoint under way.

    Attributes:
        num_tasks: k, the number of masks.
        waiting: the units that are not submitted yet.
        first: for each part, the task number of its first mask.
        rows: for each part, its packed masks, as `share` returned them.
        counts: for each part that has counted, its counts, by part number.
        shared_counts: the sum of all counts, as `share` returned it.
        asked: for each unit under way, by name, the answers so far, by part number.
    """

    num_tasks: int
    waiting: deque[EvaluationUnit]
    first: list[int]
    rows: list[object]
    counts: dict[int, np.ndarray] = field(default_factory=dict)
    shared_counts: object = None
    asked: dict[str, dict[int, PartAnswers]] = field(default_factory=dict)


class ShardedEvaluation:
    """The driver's side of sharded evaluation, which submits each step after the step before.

    One checkpoint is under way at a time.

    Args:
        share: a function that makes a large value cheap to send to workers.
        submit: a function that submits a step to a pool that `shard_pool` names.
        num_shards: the number of actors that hold parts.
        read: a function that reads packed rows and checks them against their checksums.
    """

    def __init__(
        self,
        share: Callable[[Any], Any],
        submit: Callable[[Submission], None],
        num_shards: int,
        read: ReadRows,
    ) -> None:
        self._share, self._submit = share, submit
        self._num_shards, self._read = num_shards, read
        self._later: deque[tuple[int, Sequence[EvaluationUnit]]] = deque()
        self._now: _Checkpoint | None = None
        self._num_scored = 0

    def submit(self, num_tasks: int, units: Sequence[EvaluationUnit]) -> None:
        """Evaluate a checkpoint after the checkpoints that were submitted earlier."""
        self._later.append((num_tasks, units))
        if self._now is None:
            self._begin()

    def settle(self, outcome: Outcome) -> list[Outcome]:
        """Take the outcome of a step, and submit the steps that follow.

        Returns:
            The outcomes of the evaluation units that have ended: rows or an error.
        """
        unit = outcome.unit
        if outcome.error is not None:
            outcome = replace(outcome, error=f"{unit.name}: {outcome.error}")
        if isinstance(unit, CountUnit):
            return self._counted(unit, outcome)
        if isinstance(unit, LeadersUnit):
            return self._answered(unit, outcome)
        return self._ended(outcome, unit.asked)

    def _begin(self) -> None:
        """Submit the first step of the next checkpoint: the counts of its parts."""
        num_tasks, units = self._later.popleft()
        bounds = part_bounds(num_tasks, min(self._num_shards, num_tasks))
        # The driver holds one part at a time, because all masks may not fit into its memory.
        rows = [self._share(self._read(range(first, end))) for first, end in bounds]
        self._now = _Checkpoint(num_tasks, deque(units), [first for first, _ in bounds], rows)
        for place, part in enumerate(rows):
            self._submit(Submission(shard_pool(place), CountUnit(num_tasks, place), (part,)))

    def _counted(self, unit: CountUnit, outcome: Outcome) -> list[Outcome]:
        now = self._now
        if now is None or now.num_tasks != unit.num_tasks:
            # The checkpoint was given up because another part failed.
            return []
        if outcome.error is not None:
            given_up = [replace(outcome, unit=asked) for asked in now.waiting]
            now.waiting.clear()
            self._go_on()
            return given_up
        now.counts[unit.place] = outcome.result
        if len(now.counts) == len(now.rows):
            counts = np.sum(list(now.counts.values()), axis=0, dtype=np.int32)
            now.shared_counts = self._share(counts)
            self._go_on()
        return []

    def _go_on(self) -> None:
        """Submit more units of the checkpoint, or begin the next checkpoint."""
        now = self._now
        assert now is not None
        while now.waiting and len(now.asked) < _ASKED_AT_ONCE:
            asked = now.waiting.popleft()
            now.asked[asked.name] = {}
            for place, (first, rows) in enumerate(zip(now.first, now.rows, strict=True)):
                step = LeadersUnit(asked, place, first)
                self._submit(Submission(shard_pool(place), step, (rows, now.shared_counts)))
        if not now.asked:
            self._now = None  # frees the shared masks
            if self._later:
                self._begin()

    def _answered(self, unit: LeadersUnit, outcome: Outcome) -> list[Outcome]:
        now = self._now
        if now is None or unit.asked.name not in now.asked:
            # The unit was given up because another part failed.
            return []
        if outcome.error is not None:
            return self._ended(outcome, unit.asked)
        answers = now.asked[unit.asked.name]
        answers[unit.place] = outcome.result
        if len(answers) == len(now.rows):
            together = agreed([answers[place] for place in sorted(answers)])
            tasks = sorted({*unit.asked.task_ids, *together.tasks})
            rows = dict(zip(tasks, self._read(tasks), strict=True))
            pool = shard_pool(self._num_scored % len(now.rows))
            self._num_scored += 1
            self._submit(Submission(pool, ScoreUnit(unit.asked, together, rows)))
        return []

    def _ended(self, outcome: Outcome, unit: EvaluationUnit) -> list[Outcome]:
        """Return the outcome of an evaluation unit that ended, and submit the next units."""
        assert self._now is not None
        del self._now.asked[unit.name]
        self._go_on()
        return [replace(outcome, unit=unit)]
