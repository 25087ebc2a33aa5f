"""Evaluation whose masks do not fit one actor: each of several holds a part of them.

A checkpoint goes in three steps, all of work units on pools of one actor each: every shard
counts the ones of its part; with the sum of the counts each answers the queries with the
leaders of its part; and what they agree on is scored by one of them. The exact answers are
those of one actor with all masks (supsup_core/bits/shards.py), on the CPU.
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

ReadRows = Callable[[Sequence[int]], np.ndarray]  # tasks -> their packed rows

# Evaluation units that are asked at a time: enough to keep every shard at work, and few, so
# that rows are kept early and little waits in memory.
_ASKED_AT_ONCE = 3


def shard_pool(place: int) -> str:
    """The pool whose one actor holds a part."""
    return f"shard-{place}"


@dataclass
class _Checkpoint:
    """The checkpoint under way.

    Attributes:
        num_tasks: k.
        waiting: units that are not asked yet.
        asked: units that are, by name, and what each part has answered.
        first: task of each part's first mask.
        rows: of each part, shared.
        counts: of each part, as they come.
        shared_counts: their sum, shared.
    """

    num_tasks: int
    waiting: deque[EvaluationUnit]
    first: list[int]
    rows: list[object]
    counts: dict[int, np.ndarray] = field(default_factory=dict)
    shared_counts: object = None
    asked: dict[str, dict[int, PartAnswers]] = field(default_factory=dict)


class ShardedEvaluation:
    """The driver's side: which step follows which. One checkpoint is under way at a time.

    Args:
        share: makes a large value cheap to hand to workers.
        submit: hands out a step, on a pool of `shard_pool`.
        num_shards: how many actors hold parts.
        read: packed rows of tasks, checked.
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
        """Evaluate a checkpoint after those that were submitted before."""
        self._later.append((num_tasks, units))
        if self._now is None:
            self._begin()

    def settle(self, outcome: Outcome) -> list[Outcome]:
        """Go on with what a step has brought.

        Returns:
            the outcomes of whole evaluation units: their rows, or why there are none.
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
        """Count the parts of the next checkpoint."""
        num_tasks, units = self._later.popleft()
        bounds = part_bounds(num_tasks, min(self._num_shards, num_tasks))
        # One part at a time passes through this process.
        rows = [self._share(self._read(range(first, end))) for first, end in bounds]
        self._now = _Checkpoint(num_tasks, deque(units), [first for first, _ in bounds], rows)
        for place, part in enumerate(rows):
            self._submit(Submission(shard_pool(place), CountUnit(num_tasks, place), (part,)))

    def _counted(self, unit: CountUnit, outcome: Outcome) -> list[Outcome]:
        now = self._now
        if now is None or now.num_tasks != unit.num_tasks:  # given up for want of another part
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
        """Ask more of the checkpoint, or begin the next."""
        now = self._now
        assert now is not None
        while now.waiting and len(now.asked) < _ASKED_AT_ONCE:
            asked = now.waiting.popleft()
            now.asked[asked.name] = {}
            for place, (first, rows) in enumerate(zip(now.first, now.rows, strict=True)):
                step = LeadersUnit(asked, place, first)
                self._submit(Submission(shard_pool(place), step, (rows, now.shared_counts)))
        if not now.asked:
            self._now = None  # its masks are let go
            if self._later:
                self._begin()

    def _answered(self, unit: LeadersUnit, outcome: Outcome) -> list[Outcome]:
        now = self._now
        if now is None or unit.asked.name not in now.asked:  # given up for want of another part
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
        """A unit's own outcome, and whatever follows it."""
        assert self._now is not None
        del self._now.asked[unit.name]
        self._go_on()
        return [replace(outcome, unit=unit)]
