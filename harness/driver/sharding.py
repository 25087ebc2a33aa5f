"""Evaluate masks that do not fit into one actor. Several actors (shards) each hold a part of them.

Each shard has a pool with one actor. The evaluation of a checkpoint has three steps:

1. For each bit position of a packed mask, every shard counts the ones in the masks of its part.
2. Every shard gets the sum of these counts over all parts. For each query, it finds the leader of
   its part: the task whose mask has the smallest product with the query's evidence. (The product
   is the sum of the evidence of the weights that the mask keeps.)
3. The answer to a query is the leader with the smallest product, among the leaders of all parts.
   One shard counts the right labels with these answers.

An exact algorithm gives the same answers as one actor that has all masks and computes on the CPU
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

# Largest number of evaluation units in progress at a time. Three units keep every shard busy. The
# number is small, so that the first rows are written early, and few answers wait in memory.
_ASKED_AT_ONCE = 3


def shard_pool(place: int) -> str:
    """Return the name of the pool for one part of the masks. `place` is the part's number."""
    return f"shard-{place}"


@dataclass
class _Checkpoint:
    """The checkpoint that is being evaluated.

    Attributes:
        num_tasks: k, the number of masks.
        waiting: the units that are not submitted yet.
        first: for each part, the task number of its first mask.
        rows: for each part, its packed masks, in the form that `share` returned.
        counts: a mapping from part number to the result of the part's CountUnit, for the parts that
            have counted their ones.
        shared_counts: the sum of the counts of all parts, in the form that `share` returned. None
            until all parts have counted.
        asked: a mapping from the name of a unit in progress to its answers so far. The answers of a
            unit are a mapping from part number to the answers of the part.
    """

    num_tasks: int
    waiting: deque[EvaluationUnit]
    first: list[int]
    rows: list[object]
    counts: dict[int, np.ndarray] = field(default_factory=dict)
    shared_counts: object = None
    asked: dict[str, dict[int, PartAnswers]] = field(default_factory=dict)


class ShardedEvaluation:
    """The driver's part of sharded evaluation. It submits a step when the earlier steps have ended.

    The checkpoints are evaluated one after another.

    Args:
        share: a function that stores a large value once, so that it is cheap to send to workers.
        submit: a function that submits a step to the pool of a shard.
        num_shards: the number of shards.
        read: a function that takes task numbers, reads the packed masks of these tasks, and checks
            them against their checksums.
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
        """Add a checkpoint to the queue: it is evaluated after the checkpoints submitted earlier.

        Args:
            num_tasks: k, the number of masks of the checkpoint.
            units: the evaluation units whose results are missing.
        """
        self._later.append((num_tasks, units))
        if self._now is None:
            self._begin()

    def settle(self, outcome: Outcome) -> list[Outcome]:
        """Handle the outcome of a step, and submit the next steps.

        Returns:
            The outcomes of the evaluation units that have now ended. Each has the unit's rows or an
            error.
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
        """Submit the first step of the next checkpoint, in which each part counts its ones."""
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
        """Submit more units of the checkpoint. If no units are left, begin the next checkpoint."""
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
