"""The recovery stage: at each checkpoint, recover some masks by gradient descent."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

from harness.data.dataset import Dataset
from harness.driver.bars import CheckpointBars
from harness.driver.protocol import Shared, Submission
from harness.driver.work import Work
from harness.executors.protocol import Outcome, Pool
from harness.plan.pools import EVALUATE, TRAIN
from harness.plan.units import Checkpoints, RecoveryUnit, recovery_units
from harness.workers.evaluating import EvaluateWorker


class Recover:
    """The stage that recovers masks from reservoirs by gradient descent, if this is asked for.

    The workers of the evaluation pool do the work. Each unit fills its own reservoirs.

    Args:
        work: the run in progress.
    """

    does = "recover"

    def __init__(self, work: Work) -> None:
        self._work, self._config = work, work.config
        self._checkpoints = Checkpoints(work.config.evaluate.checkpoints)
        self._bars = CheckpointBars(work.display, "recovering", accuracy="accuracy")

    def is_complete(self) -> bool:
        """Return whether the rows of all checkpoints are on disk."""
        return not self._work.files.missing(self.asked())

    def asked(self) -> list[RecoveryUnit]:
        """List the units of all checkpoints, including units whose results exist."""
        checkpoints = self._config.evaluate.checkpoints
        return [unit for k in checkpoints for unit in recovery_units(self._config, k)]

    def rehearsals(self, data: Dataset) -> Iterable[Callable[[], object]]:
        """Return no computation: gradient descent has no kernels of its own."""
        return ()

    def begin(self, shared: Shared) -> Mapping[str, Pool]:
        """See Stage.begin."""
        arguments = shared.spec, shared.test
        return {EVALUATE: Pool(EvaluateWorker, arguments, runs_alone_after=TRAIN)}

    def due(self, seen: Container[int]) -> Iterator[Submission]:
        """See Stage.due."""
        for k in self._checkpoints.ready(seen):
            if units := self._work.files.missing(recovery_units(self._config, k)):
                self._bars.begin(k, units)
                for unit in units:
                    yield Submission(EVALUATE, unit, num_masks=k)

    def keep(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """See Stage.keep."""
        for outcome in outcomes:
            if outcome.error is None:
                self._work.files.keep(outcome.unit, outcome.result)
                self._bars.add(outcome.unit, outcome.result)
        return outcomes

    def show(self, running: Mapping[str, float]) -> None:
        """Do nothing, because the bars count only rows that are on disk."""
