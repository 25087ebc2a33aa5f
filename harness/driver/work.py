"""The objects that the stages of a command share."""

from collections.abc import Iterator
from dataclasses import replace

from harness.config.schema import Config
from harness.driver.failures import Failures
from harness.driver.masks import CommittedMasks
from harness.driver.protocol import TableUnit
from harness.driver.unit_files import UnitFiles
from harness.plan.evaluation import evaluation_units
from harness.plan.pools import TRAIN
from harness.plan.reservoirs import recall_units, recovery_units
from harness.reporting.display import Display, Labelled
from harness.reporting.metrics import NoMetrics
from harness.run.run import Run
from harness.run.seen import allocation_parts, seen_tasks


class Work:
    """The run in progress, and the objects that all stages use to work on it.

    Args:
        typed: the configuration of this start, as the user typed it. It gives the executor and the
            numbers of actors.
        run: an open run. This process holds the lock of the run.
        display: the display that shows the progress.
        label: the label of the run in texts for the user and in the executor, such as seed-1; "" if
            the command has one run.

    Attributes:
        config: the run's configuration, but with the evaluation settings of this start. No value is
            `auto`.
        masks: the committed masks.
        files: the result files of evaluation and recall units.
        seen: the tasks that the run has seen, and the masks of its checkpoints.
        failures: the table `failures`.
        metrics: the listener to the run's events. Before the driver begins, it does nothing.
    """

    def __init__(self, typed: Config, run: Run, display: Display, label: str = "") -> None:
        self.typed, self.run, self.label = typed, run, label
        self.display = Labelled(display, label) if label else display
        self.config = run.spec.config
        self.masks = CommittedMasks(run)
        self.files = UnitFiles(run.directory, run.store.run_id)
        parts = allocation_parts(run.folder("allocation"), run.store.run_id)
        self.seen = seen_tasks(self.config, self.masks, parts)
        self.metrics = NoMetrics()
        self.failures = Failures(run.folder("failures"), run.store.run_id)
        self.failures.forget_done(self._was_done)

    def described(self) -> str:
        """Return a text for the user: how much of the training is on disk."""
        num_masks, num_tasks = len(self.masks), self.config.tasks
        if (found := self.seen.mistakes) is not None:
            seen = f"{found.num_tasks} of {num_tasks} tasks are seen"
            return f"{seen}, and {num_masks} masks are committed"
        return f"{num_masks} of {num_tasks} tasks are committed"

    def own_units(self) -> Iterator[TableUnit]:
        """Yield the evaluation and recall units of the settings with which the run began.

        This start may have other settings, and so other units.
        """
        own = replace(self.config, evaluate=self.run.own)
        for k in own.evaluate.checkpoints:
            yield from evaluation_units(own, k)
            if own.evaluate.reservoir:
                yield from recall_units(own, k)
                yield from recovery_units(own, k)

    def _was_done(self, pool: str, unit: str, task_id: int) -> bool:
        """Return whether the result exists for a row of the table `failures`."""
        return task_id in self.masks if pool == TRAIN else self.files.has(unit)
