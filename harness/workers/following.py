"""The worker that follows a stream of tasks: a plain class that does not use Ray.

The worker keeps the frozen masks in its memory from unit to unit. So the driver need not send all
masks again with each unit. supsup_core/training/learner.py describes the learner.

Shape letters: R bytes of a packed row.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import UInt8

from harness.plan.ownership import longest
from harness.plan.resolve import most_masks
from harness.plan.units import StreamUnit
from harness.run.spec import RunSpec
from harness.tables.schemas import ALLOCATION
from harness.workers.images import own
from harness.workers.task_rows import tasks_table
from harness.workers.training import trainer_of, with_warnings
from supsup_core.data import ImageSet
from supsup_core.engines.mean_slopes import mean_slopes_for
from supsup_core.inference.allocation import FEWEST_OTHERS, MarginRule, PaperRule, Rule
from supsup_core.inference.candidates import Candidates
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.states.density import uniform_tensors
from supsup_core.states.shuffled import Shuffles
from supsup_core.training.learner import Decision, FollowedMask, Learner
from supsup_core.training.stream import TaskStream

# One mask with one batch at a time is too little work for a GPU.
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class FollowedPart:
    """The result of a unit.

    Attributes:
        row: (1, R) the packed mask.
        tasks: the mask's row of the table `tasks`, without the checksum.
        decisions: rows of the table `allocation`.
        warnings: warnings of the trainer, and texts about tensors in which the mask has only zeros
            or only ones, for the log.
    """

    row: UInt8[np.ndarray, "1 R"]
    tasks: pa.Table
    decisions: pa.Table
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class MasksMissing:
    """The result of a unit if the worker does not have the earlier masks; see FollowWorker.run."""


class FollowWorker:
    """A worker that follows a stream. In a unit, it allocates and trains one mask.

    Args:
        spec: the run's specification.
        train: the training images.
        test: the test images, for the accuracy in the table `tasks`.
        name: the worker's name, for the table `tasks`.
    """

    def __init__(self, spec: RunSpec, train: ImageSet, test: ImageSet, name: str) -> None:
        torch.set_num_threads(1)  # results depend on this number, and Ray may set another
        self._spec, self._name, self._train = spec, name, own(train)
        self._trainer = trainer_of(spec, self._train, own(test), _CPU)
        self._learner = self._new_learner()
        self._steps_done = 0

    def progress(self) -> float:
        """Return the fraction of the current mask's training that is done, from 0 to 1.

        Another thread calls this method while `run` is busy.
        """
        return min(1.0, self._steps_done / self._spec.config.train.steps)

    def run(
        self, unit: StreamUnit, rows: UInt8[np.ndarray, "_ R"] | None = None
    ) -> FollowedPart | MasksMissing:
        """Train the unit's mask, and make all decisions up to the allocation of the next mask.

        Args:
            unit: the unit.
            rows: the packed masks of all units before this unit. None: the worker uses the masks
                that it has trained or received so far.

        Returns:
            The mask and the decisions. MasksMissing if `rows` is None and this worker does not have
            the masks, for example because it replaces a lost worker.
        """
        if rows is not None:
            self._learner = self._new_learner()
            self._learner.candidates.freeze(rows)
        if self._learner.candidates.num_frozen != unit.mask:
            return MasksMissing()
        part, texts = with_warnings(lambda: self._follow(unit))
        return replace(part, warnings=tuple(dict.fromkeys((*texts, *part.warnings))))

    def _follow(self, unit: StreamUnit) -> FollowedPart:
        started = time.perf_counter()
        found = self._learner.follow(unit.first, on_step=self._on_step)
        seconds = time.perf_counter() - started
        self._steps_done = 0
        row = found.row[None]
        uniform = [
            f"{tensor} of mask {unit.mask} {'keeps' if is_full else 'drops'} everything"
            for _, tensor, is_full in uniform_tensors(self._spec.layout, row)
        ]
        tasks = self._measured(unit, found, seconds)
        return FollowedPart(row, tasks, self._decisions(found.decisions), uniform)

    def _measured(self, unit: StreamUnit, found: FollowedMask, seconds: float) -> pa.Table:
        """Make the mask's row of the table `tasks`."""
        steps = self._spec.config.train.steps
        task = self._spec.task(longest(unit.first, unit.first + found.steps, steps))
        return tasks_table(
            self._spec,
            {unit.mask: self._trainer.measure(task, found.state)},
            found.row[None],
            steps=found.steps,
            seconds=seconds,
            worker=self._name,
            device=_CPU,
        )

    def _decisions(self, decisions: Sequence[Decision]) -> pa.Table:
        """Make rows of the table `allocation`."""
        steps = self._spec.config.train.steps
        return pa.table(
            {
                "batch": [one.batch for one in decisions],
                "task_id": [one.batch // steps for one in decisions],
                "mask": [one.mask for one in decisions],
                "score": [one.score for one in decisions],
                "threshold": [one.threshold for one in decisions],
                "allocated": [one.allocates for one in decisions],
                "num_masks": [one.num_masks for one in decisions],
            },
            schema=ALLOCATION,
        )

    def _new_learner(self) -> Learner:
        """Make a learner that has no mask yet."""
        spec, config = self._spec, self._spec.config
        allocation, layout, weights = config.allocation, spec.layout, spec.weights()
        objective = OBJECTIVES[allocation.objective]
        rule, budget = _rule_of(spec), most_masks(config)
        candidates = Candidates(
            mean_slopes_for(spec.network, weights, layout, objective, spec.num_real),
            rule,
            Shuffles(layout, weights, FEWEST_OTHERS, config.seed),
            self._untrained,
            budget,
            layout.row_bytes,
        )
        stream = TaskStream(cache(spec.task), config.tasks, self._train, spec.recipe, config.seed)
        every = allocation.every
        return Learner(stream, self._trainer, candidates, rule, layout, every=every, budget=budget)

    def _untrained(self, mask: int) -> UInt8[np.ndarray, " R"]:
        """Return the packed state of a mask before its first training step."""
        task = replace(self._spec.task(0), task_id=mask)
        states, _ = next(self._trainer.stages([task], after=[0]))
        row: np.ndarray = self._spec.layout.pack(states)[0]
        return row

    def _on_step(self, done: int) -> None:
        self._steps_done = done


def _rule_of(spec: RunSpec) -> Rule:
    """Make the rule that the configuration names."""
    allocation = spec.config.allocation
    if allocation.rule == "paper":
        return PaperRule(allocation.epsilon, allocation.floor)
    return MarginRule(allocation.threshold)
