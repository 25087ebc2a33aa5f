"""The driver of one run: it submits work units, and passes the results to the stages.

The stages store the results. harness/driver/together.py has the loop, in which the drivers of all
runs of a command share one executor.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from harness.config.command import show_traceback
from harness.data.dataset import Dataset
from harness.driver.failures import failed_tasks
from harness.driver.listeners import make_metrics
from harness.driver.protocol import Shared, Stage
from harness.driver.work import Work
from harness.executors.protocol import Executor, Outcome, Pool
from harness.places.places import Place
from harness.plan.ownership import Mistakes
from harness.plan.units import RunUnit
from harness.run.refusals import readable_path_errors
from harness.run.run import Run

logger = logging.getLogger("harness")

DONE, FAILED = 0, 1  # exit codes


class Driver:
    """One start of a command that works on a run.

    Args:
        work: the objects that all stages share.
        stages: the stages of the command. If stage B needs the results of stage A, A must come
            before B.

    Attributes:
        error: the error that ended the work on this run; None if there is none. The work on the
            other runs of the command goes on.
    """

    def __init__(self, work: Work, stages: Sequence[Stage]) -> None:
        self._work, self._stages = work, stages
        self.error: Exception | None = None
        self._under_way: dict[tuple[str, str], Stage] = {}  # names of pool and unit -> stage
        self._failed: list[Outcome] = []
        asked = [unit for stage in stages for unit in stage.asked()]
        work.files.put_others_aside(asked)
        work.failures.keep_units({unit.name for unit in (*asked, *work.own_units())})

    @property
    def label(self) -> str:
        """The label of the run, such as seed-1; "" if the command has one run."""
        return self._work.label

    @property
    def run(self) -> Run:
        """The run on which this driver works."""
        return self._work.run

    @property
    def mistakes(self) -> Mistakes | None:
        """The mistakes of a learner on a stream; None if the task is given in training."""
        return self._work.seen.mistakes

    def is_complete(self) -> bool:
        """Return whether the results of all units exist."""
        return all(stage.is_complete() for stage in self._stages)

    @property
    def does(self) -> str:
        """A text for the screen: the verbs of all stages, such as "train or evaluate"."""
        return " or ".join(stage.does for stage in self._stages)

    @property
    def cure(self) -> str:
        """A text for the user that says how to train a damaged mask again."""
        go_on = "continue the run with harness/scale.py"
        return go_on if self._work.run.read_only else "type the same command again"

    def state(self) -> str:
        """Return a text for the user: which results are kept if this start is stopped now."""
        if self._work.run.read_only:
            return "the evaluations so far are kept"
        return self._work.described()

    def files(self) -> list[Place]:
        """List the result files of this start's units, in the order of the units.

        Files that do not exist yet are left out. The run directory may have files of other units,
        which are left out too.
        """
        return self._work.files.existing(unit for stage in self._stages for unit in stage.asked())

    def rehearsals(self, data: Dataset) -> list[Callable[[], object]]:
        """List small computations that call every Numba kernel of the workers."""
        return [step for stage in self._stages for step in stage.rehearsals(data)]

    def begin(self, executor: Executor, data: Dataset, train: Any, test: Any) -> dict[str, Pool]:
        """Log how this start works, begin the stages, and return a mapping from name to pool.

        Call `end` later, also if this method raises an error.

        Args:
            executor: the executor that will run the units.
            data: the data set.
            train: the training images, in the form that Executor.share returned.
            test: the test images, in the form that Executor.share returned.
        """
        run, share = self._work.run, executor.share
        asked = (unit for stage in self._stages for unit in stage.asked())
        self._work.metrics = make_metrics(self._work, executor, asked)
        # A start that only reads masks has no training actors, but `describe` would name them.
        reads = f"evaluating, executor {self._work.typed.executor}"
        how = reads if run.read_only else executor.describe()
        logger.info("%s; run directory %s", how, run.directory)
        shared = Shared(data, share(run.spec), train, test, share, executor.trainers())
        return {name: pool for stage in self._stages for name, pool in stage.begin(shared).items()}

    def feed(self, executor: Executor) -> None:
        """Submit all units that the stages list as ready.

        Raises:
            CorruptMask: a mask that a unit needs is damaged.
        """
        masks: dict[int, Any] = {}  # k -> shared packed masks of tasks 0 to k - 1
        for stage in self._stages:
            for due in stage.due(self._work.seen):
                arguments = due.arguments
                if due.num_masks is not None:
                    if due.num_masks not in masks:
                        masks[due.num_masks] = executor.share(
                            self._work.masks.read(range(due.num_masks))
                        )
                    arguments = (masks[due.num_masks], *arguments)
                self._under_way[due.pool, due.unit.name] = stage
                executor.submit(due.pool, RunUnit(self.label, due.unit), *arguments)

    def settle(self, executor: Executor, outcomes: Sequence[Outcome]) -> None:
        """Pass outcomes to the stages of their units, and submit the units that are ready next.

        Args:
            executor: the executor that runs the units.
            outcomes: outcomes of some units of this run.

        Raises:
            CorruptMask: a mask that a unit needs is damaged.
            UserError: the run directory cannot be written, or its disk is full.
        """
        ended = [replace(one, unit=one.unit.unit) for one in outcomes]
        owners = [self._under_way.pop((one.pool, one.unit.name)) for one in ended]
        for stage in self._stages:
            own = [one for one, owner in zip(ended, owners, strict=True) if owner is stage]
            if own:
                self._note(stage.keep(own))
                self.feed(executor)

    def show(self, executor: Executor) -> None:
        """Show the progress of the running units, and report the metrics."""
        running = executor.running(self.label)
        for stage in self._stages:
            stage.show(running)
        self._work.metrics.watch()

    def end(self) -> None:
        """End the listeners of the run's events."""
        self._work.metrics.end()

    def report_failures(self) -> int:
        """Log the incomplete checkpoints and the failed units.

        Returns:
            The exit code: DONE if no unit failed, FAILED otherwise.
        """
        if not self._failed:
            return DONE
        missing = [self._work.files.missing(stage.asked()) for stage in self._stages]
        late = sorted({unit.num_tasks for units in missing for unit in units})
        if late:
            logger.error(
                "%scheckpoints %s are incomplete because some units failed", self._whose, late
            )
        # Units often fail for the same reason, so one traceback is enough.
        show_traceback(next((one.traceback for one in self._failed[::-1] if one.traceback), ""))
        for outcome in self._failed:
            tasks = ", ".join(map(str, failed_tasks(outcome.unit)))
            logger.error(
                "%sfailed three times: %s (tasks %s): %s",
                *(self._whose, outcome.unit.name, tasks, outcome.error),
            )
        return FAILED

    @property
    def _whose(self) -> str:
        """The beginning of a log line about the run: its label, if the command has more runs."""
        return f"{self.label}: " if self.label else ""

    def _note(self, ended: Sequence[Outcome]) -> None:
        """Add failed units to the table `failures`, and delete the rows of successful units."""
        for outcome in ended:
            unit = outcome.unit
            if outcome.error is not None:
                logger.warning("%sset aside %s: %s", self._whose, unit.name, outcome.error)
                self._failed.append(outcome)
                self._work.metrics.set_aside(outcome.pool)
            with readable_path_errors(self._work.run.directory):
                if outcome.error is None:
                    self._work.failures.forget(unit.name, failed_tasks(unit))
                else:
                    self._work.failures.add(outcome)
