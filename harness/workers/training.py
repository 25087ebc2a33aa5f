"""The worker inside a training actor: a plain class that does not use Ray.

The serial executor calls the worker in this process. The Ray executor makes actors of this class.
The worker has a copy of the data set, computes with one thread, and does not write to the mask
store.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TypeVar

import numpy as np
import pyarrow as pa
import torch

from harness.errors import Failure
from harness.plan.device import check_works, training_device, use_fixed_arithmetic
from harness.plan.units import TrainUnit
from harness.run.spec import RunSpec
from harness.workers.images import own
from harness.workers.task_rows import TRAINED, tasks_table
from supsup_core.data import ImageSet
from supsup_core.methods.protocol import Shared
from supsup_core.states.density import uniform_tensors
from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training.choose import trainer_for
from supsup_core.training.protocol import Measured, Trainer

R = TypeVar("R")


@dataclass(frozen=True)
class TrainedUnit:
    """The result of a training unit.

    Attributes:
        unit: the unit as it was submitted.
        rows: (B, R) the B new masks, packed into R bytes each. They are the masks of
            `unit.missing`, except the failed tasks.
        tasks: rows of the table `tasks` for these masks, in the same order.
        failed: a mapping from task number to error, for each missing task that failed.
        warnings: warnings of the trainer, for the log.
        uniform: texts about masks without information: one text for each tensor in which a new mask
            has only zeros or only ones.
        shared: the data for later tasks, a mapping from name to array; see carried_shapes in
            supsup_core/training/transfer.py. Empty if the unit's tasks have failed.
    """

    unit: TrainUnit
    rows: np.ndarray
    tasks: pa.Table
    failed: dict[int, Failure] = field(default_factory=dict)
    uniform: Sequence[str] = ()
    warnings: Sequence[str] = ()
    shared: Shared = field(default_factory=dict)


def with_warnings(work: Callable[[], R]) -> tuple[R, tuple[str, ...]]:
    """Do some work. Return its result, and the text of each RuntimeWarning once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        result = work()
    texts = (str(w.message) for w in caught if issubclass(w.category, RuntimeWarning))
    return result, tuple(dict.fromkeys(texts))


def trainer_of(spec: RunSpec, train: ImageSet, test: ImageSet, device: torch.device) -> Trainer:
    """Make the trainer of a run.

    Args:
        spec: the run's specification.
        train: the training images.
        test: the test images, on which the trainer measures states.
        device: the device on which the trainer computes.
    """
    config = spec.config
    return trainer_for(
        spec.network,
        spec.method,
        train,
        test,
        spec.recipe,
        seed=config.seed,
        dtype=getattr(torch, config.train.dtype),
        device=device,
    )


class TrainWorker:
    """A worker that trains blocks of tasks.

    Args:
        spec: the run's specification.
        train: the training images.
        test: the test images, for the accuracy in the table `tasks`.
        name: the worker's name, for the table `tasks`.
    """

    def __init__(self, spec: RunSpec, train: ImageSet, test: ImageSet, name: str) -> None:
        use_fixed_arithmetic()
        self._spec, self._name = spec, name
        self._device = training_device(spec.config.train.device)
        self._trainer = trainer_of(spec, own(train), own(test), self._device)
        self._layout = spec.layout
        self._is_warm = False
        self._steps_done = 0

    def progress(self) -> float:
        """Return the fraction of the current unit that is done, from 0 to 1.

        Another thread calls this method while `run` is busy.
        """
        return self._steps_done / self._spec.config.train.steps

    def run(self, unit: TrainUnit, shared: Shared | None = None) -> TrainedUnit:
        """Train the blocks of a unit, then measure and pack the missing masks.

        A whole block is trained even if some of its masks exist already, because training only
        some of its tasks would give other masks. If training raises an error, the whole unit fails.
        If making a task or measuring a state raises an error, only this task fails. (For an
        exception, see _tasks.)

        Args:
            unit: the unit.
            shared: data from earlier tasks, for a unit of one block; empty for the first task. None
                if no task needs such data.
        """
        trained, texts = with_warnings(lambda: self._run(unit, shared))
        return replace(trained, warnings=texts)

    def _run(self, unit: TrainUnit, shared: Shared | None) -> TrainedUnit:
        self.warm_up(unit, shared)
        started = time.perf_counter()
        blocks, failed = self._blocks(unit)
        if unit.missing and failed.keys() >= set(unit.missing):
            return self._nothing(unit, failed)
        states, after = self._trained(blocks, shared)
        seconds = (time.perf_counter() - started) / len(states)
        self._steps_done = 0
        pairs = [
            (task, state)
            for task, state in zip(chain(*blocks), states, strict=True)
            if task.task_id in unit.missing and task.task_id not in failed
        ]
        measured = self._measured(pairs, {**(shared or {}), **after}, failed)
        if not measured:
            return self._nothing(unit, failed, after)
        rows = self._layout.pack([state for task, state in pairs if task.task_id in measured])
        tasks_of_rows = list(measured)
        uniform = [
            f"{tensor} of task {tasks_of_rows[i]} {'keeps' if is_full else 'drops'} everything"
            for i, tensor, is_full in uniform_tensors(self._layout, rows)
        ]
        tasks = tasks_table(
            self._spec,
            measured,
            rows,
            steps=self._spec.config.train.steps,
            seconds=seconds,
            worker=self._name,
            device=self._device,
            free_share=self._spec.method.free_share(after) if after else None,
        )
        return TrainedUnit(unit, rows, tasks, failed, uniform, shared=after)

    def _trained(
        self, blocks: Sequence[Sequence[Task]], shared: Shared | None
    ) -> tuple[list[TaskState], Shared]:
        """Train blocks, and return the states of all tasks and the data for later tasks."""
        if shared is None:
            return self._trainer.side_by_side(blocks, on_step=self._on_step), {}
        (block,), steps = blocks, self._spec.config.train.steps
        (found,) = self._trainer.stages(block, [steps], shared, self._on_step)
        return found

    def _measured(
        self,
        pairs: Sequence[tuple[Task, TaskState]],
        shared: Shared,
        failed: dict[int, Failure],
    ) -> dict[int, Measured]:
        """Measure states all at once, or one by one if that fails.

        Args:
            pairs: tasks and their states.
            shared: data from earlier tasks and from these tasks, which may contain trained weights.
            failed: a mapping from task number to error. Tasks whose state cannot be measured are
                added.

        Returns:
            A mapping from task number to measurement, without the failed tasks.
        """
        tasks, states = [task for task, _ in pairs], [state for _, state in pairs]
        try:
            each = self._trainer.measure_each(tasks, states, shared)
            return {task.task_id: one for task, one in zip(tasks, each, strict=True)}
        except Exception:
            check_works(self._device)
        measured: dict[int, Measured] = {}
        for task, state in pairs:
            try:
                measured[task.task_id] = self._trainer.measure(task, state, shared)
            except Exception as error:
                failed[task.task_id] = Failure.of(error)
        return measured

    def warm_up(self, unit: TrainUnit, shared: Shared | None = None) -> None:
        """Train a block for one step and measure a state, so that kernels are compiled or loaded.

        So this work is not part of the measured times. Later calls do nothing. The arguments are
        those of `run`.
        """
        if self._is_warm:
            return
        self._is_warm = True
        with suppress(Exception):  # `run` meets the same error, and reports it
            tasks, _ = self._tasks(unit.blocks[0], unit.missing)
            states, after = next(self._trainer.stages(tasks, [1], shared))
            self._trainer.measure_each(tasks[:1], states[:1], {**(shared or {}), **after})

    def _nothing(
        self, unit: TrainUnit, failed: dict[int, Failure], shared: Shared | None = None
    ) -> TrainedUnit:
        """Make the result of a unit that gives no new mask.

        Either all its tasks failed, or its masks exist and only its data are needed.
        """
        rows = np.zeros((0, self._layout.row_bytes), np.uint8)
        return TrainedUnit(unit, rows, TRAINED.empty_table(), failed, shared=shared or {})

    def _blocks(self, unit: TrainUnit) -> tuple[list[list[Task]], dict[int, Failure]]:
        """Make the tasks of all blocks; see _tasks."""
        blocks: list[list[Task]] = []
        failed: dict[int, Failure] = {}
        for task_ids in unit.blocks:
            tasks, errors = self._tasks(task_ids, unit.missing)
            blocks.append(tasks)
            failed |= errors
        return blocks, failed

    def _tasks(
        self, task_ids: Sequence[int], missing: Sequence[int]
    ) -> tuple[list[Task], dict[int, Failure]]:
        """Make the tasks of a block. If a task cannot be made, a copy of another task replaces it.

        So the block keeps its shape and its batches, and the masks of the other tasks keep their
        bits. There is an exception: if each task has classes of its own, the images of each task
        affect the batches of the block, and a copy would change them. The error of one task is then
        raised, and the whole block fails.

        Returns:
            Two values. The first is a list of the block's tasks, in order. The second is a mapping
            from task number to error, for the missing tasks that cannot be made.
        """
        made: dict[int, Task] = {}
        errors: dict[int, Exception] = {}
        for i in task_ids:
            try:
                made[i] = self._spec.task(i)
            except Exception as error:
                errors[i] = error
        if errors:
            stand_in = next((task for task in made.values() if task.classes is None), None)
            if stand_in is None:
                raise next(iter(errors.values()))
            made |= {i: replace(stand_in, task_id=i) for i in errors}
        failed = {i: Failure.of(error) for i, error in errors.items() if i in missing}
        return [made[i] for i in task_ids], failed

    def _on_step(self, done: int) -> None:
        self._steps_done = done
