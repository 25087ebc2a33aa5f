"""What the stages of one start of a command share."""

from harness.config.schema import Config
from harness.driver.failures import Failures
from harness.driver.masks import CommittedMasks
from harness.driver.unit_files import UnitFiles
from harness.plan.pools import TRAIN
from harness.reporting.display import Display
from harness.reporting.metrics import NoMetrics
from harness.run.directory import Run


class Work:
    """The run in progress, and what one start of a command has done on it.

    Args:
        typed: the configuration of this start: which executor, how many actors.
        run: opened, its lock held.
        display: shows how far the stages are.

    Attributes:
        config: what the run is, with every `auto` resolved, and what is evaluated now.
        masks: the committed masks.
        files: the results that are files of tables.
        failures: the table `failures`.
        metrics: what Prometheus sees; nothing before the executor is made.
    """

    def __init__(self, typed: Config, run: Run, display: Display) -> None:
        self.typed, self.run, self.display = typed, run, display
        self.config = run.spec.config
        self.masks = CommittedMasks(run)
        self.files = UnitFiles(run.directory)
        self.metrics = NoMetrics()
        self.failures = Failures(run.failures)
        self.failures.forget_done(self._was_done)

    def _was_done(self, pool: str, unit: str, task_id: int) -> bool:
        """Whether the result exists that a row of `failures` says is missing."""
        return task_id in self.masks if pool == TRAIN else self.files.has(unit)
