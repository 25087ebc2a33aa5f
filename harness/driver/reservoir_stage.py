"""The parts that the stages of recall and of recovery share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from harness.data.dataset import Dataset
from harness.driver.bars import CheckpointBars
from harness.driver.protocol import Shared, Submission
from harness.driver.work import Work
from harness.executors.protocol import Outcome, Pool
from harness.plan.checkpoints import Checkpoints
from harness.plan.pools import EVALUATE, TRAIN
from harness.plan.units import RecallUnit, RecoveryUnit
from harness.workers.evaluating import EvaluateWorker

U = TypeVar("U", RecallUnit, RecoveryUnit)


class ReservoirStage(ABC, Generic[U]):
    """A stage whose units work on reservoirs with the masks of a checkpoint.

    The workers of the evaluation pool fill the reservoirs.

    Args:
        work: the run in progress.

    Attributes:
        does: a verb for the stage's work.
        doing: the verb for the names of progress bars, such as "recalling".
        items: plural name of the work on one task, which the bars count, such as "recalls".
    """

    does: str
    doing: ClassVar[str]
    items: ClassVar[str]

    def __init__(self, work: Work) -> None:
        self._work, self._config = work, work.config
        self._checkpoints = Checkpoints(work.config.evaluate.checkpoints)
        self._bars = CheckpointBars(work.display, self.doing, "accuracy", self.items, lambda _: 1)

    @abstractmethod
    def _units(self, num_tasks: int) -> list[U]:
        """List the units of a checkpoint, including units whose results exist."""

    def _together(self, units: Sequence[U]) -> Iterable[Any]:
        """Make the work units that are submitted from the missing units of a checkpoint."""
        return units

    def is_complete(self) -> bool:
        """Return whether the rows of all checkpoints are on disk."""
        return not any(self._missing(k) for k in self._config.evaluate.checkpoints)

    def asked(self) -> list[U]:
        """List the units of all checkpoints, including units whose results exist."""
        return [unit for k in self._config.evaluate.checkpoints for unit in self._units(k)]

    def rehearsals(self, data: Dataset) -> Iterable[Callable[[], object]]:
        """Return no computation: reservoirs and gradient descent have no kernels of their own."""
        return ()

    def begin(self, shared: Shared) -> Mapping[str, Pool]:
        """See Stage.begin."""
        arguments = shared.spec, shared.test
        return {EVALUATE: Pool(EvaluateWorker, arguments, runs_alone_after=TRAIN)}

    def due(self, seen: Container[int]) -> Iterator[Submission]:
        """See Stage.due."""
        for k in self._checkpoints.ready(seen):
            if units := self._missing(k):
                self._bars.begin(k, units)
                for unit in self._together(units):
                    yield Submission(EVALUATE, unit, num_masks=k)

    @abstractmethod
    def keep(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """See Stage.keep."""

    def show(self, running: Mapping[str, float]) -> None:
        """Do nothing, because the bars count only results that are on disk."""

    def _missing(self, num_tasks: int) -> list[U]:
        return self._work.files.missing(self._units(num_tasks))
