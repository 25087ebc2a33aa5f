"""The recall stage: store the masks of each checkpoint in reservoirs, and recall some masks."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from harness.data.dataset import Dataset
from harness.driver.bars import CheckpointBars
from harness.driver.protocol import Shared, Submission
from harness.driver.work import Work
from harness.executors.protocol import Outcome, Pool
from harness.plan.pools import EVALUATE, TRAIN
from harness.plan.units import Checkpoints, RecallUnit, ReservoirUnit, recall_units
from harness.workers.evaluating import EvaluateWorker


class Recall:
    """The stage that stores masks in reservoirs, and recalls some of them.

    Each checkpoint needs one reservoir for each rule. The workers of the evaluation pool fill the
    reservoirs.

    Args:
        work: the run in progress.
    """

    does = "recall"

    def __init__(self, work: Work) -> None:
        self._work, self._config = work, work.config
        self._checkpoints = Checkpoints(work.config.evaluate.checkpoints)
        self._bars = CheckpointBars(work.display, "recalling", accuracy="accuracy")

    def is_complete(self) -> bool:
        """Return whether the rows of all checkpoints are on disk."""
        return not any(self._missing(k) for k in self._config.evaluate.checkpoints)

    def asked(self) -> list[RecallUnit]:
        """List the units of all checkpoints, including units whose results exist."""
        checkpoints = self._config.evaluate.checkpoints
        return [unit for k in checkpoints for unit in recall_units(self._config, k)]

    def rehearsals(self, data: Dataset) -> Iterable[Callable[[], object]]:
        """Return no computation: reservoirs have no kernels of their own."""
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
                # recall_units lists the units of one rule after another, as groupby needs.
                for _, of_rule in groupby(units, lambda unit: unit.rule):
                    yield Submission(EVALUATE, ReservoirUnit(tuple(of_rule)), num_masks=k)

    def keep(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """See Stage.keep."""
        ended = []
        for outcome in outcomes:
            for row, unit in enumerate(outcome.unit.recalls):
                if outcome.error is None:
                    rows = outcome.result.slice(row, 1)
                    self._work.files.keep(unit, rows)
                    self._work.metrics.recalled(unit, rows)
                    self._bars.add(unit, rows)
                ended.append(replace(outcome, unit=unit))
        return ended

    def show(self, running: Mapping[str, float]) -> None:
        """Do nothing, because the bars count only rows that are on disk."""

    def _missing(self, k: int) -> list[RecallUnit]:
        return self._work.files.missing(recall_units(self._config, k))
