"""The evaluation stage: infer the tasks of test batches, and count the right labels.

A task is inferred among the masks of a checkpoint.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness.data.dataset import Dataset
from harness.driver.bars import CheckpointBars
from harness.driver.protocol import Shared, Submission
from harness.driver.sharding import ShardedEvaluation, shard_pool
from harness.driver.work import Work
from harness.executors.protocol import Outcome, Pool
from harness.plan.checkpoints import Checkpoints
from harness.plan.evaluation import evaluation_units
from harness.plan.pools import EVALUATE, TRAIN
from harness.plan.units import EvaluationUnit
from harness.run.shared import weights_after
from harness.workers.evaluating import EvaluateWorker
from harness.workers.queries import queries_of_tasks
from harness.workers.rehearsal import evaluation_rehearsals
from harness.workers.shard import ShardWorker


class Evaluate:
    """The stage that evaluates a checkpoint as soon as the checkpoint's masks are committed.

    The rows of a unit are written to disk as soon as the unit ends. If `actors.shards` is above 1,
    a unit is done in several steps; see ShardedEvaluation.

    Args:
        work: the run in progress.
    """

    does = "evaluate"

    def __init__(self, work: Work) -> None:
        self._work, self._config = work, work.config
        self._checkpoints = Checkpoints(work.config.evaluate.checkpoints)
        self._bars: CheckpointBars  # made by `begin`, because bars count queries of the test images
        self._sharded: ShardedEvaluation | None = None
        self._steps: list[Submission] = []  # steps of sharded evaluation to submit next
        self._share: Callable[[Any], Any] = lambda value: value
        # Checkpoints whose masks are committed, and whose trained weights are not kept yet.
        self._late: list[int] = []

    def is_complete(self) -> bool:
        """Return whether the rows of all checkpoints are on disk."""
        return not any(self._missing(k) for k in self._config.evaluate.checkpoints)

    def asked(self) -> list[EvaluationUnit]:
        """List the units of all checkpoints, including units whose results exist."""
        return [unit for k in self._config.evaluate.checkpoints for unit in self._units(k)]

    def rehearsals(self, data: Dataset) -> Iterable[Callable[[], object]]:
        """See Stage.rehearsals."""
        missing = [unit for k in self._config.evaluate.checkpoints for unit in self._missing(k)]
        return evaluation_rehearsals(self._work.run.spec, data, missing)

    def begin(self, shared: Shared) -> Mapping[str, Pool]:
        """See Stage.begin."""
        self._share = shared.share
        num_queries = queries_of_tasks(self._work.run.spec, shared.data.test)
        self._bars = CheckpointBars(
            self._work.display, "evaluating", "accuracy_gnu", "queries", num_queries
        )
        arguments, num_shards = (shared.spec, shared.test), self._work.typed.actors.shards
        if num_shards == 1:
            return {EVALUATE: Pool(EvaluateWorker, arguments, runs_alone_after=TRAIN)}
        self._sharded = ShardedEvaluation(
            shared.share, self._steps.append, num_shards, self._work.masks.read
        )
        pool = Pool(ShardWorker, arguments, runs_alone_after=TRAIN)
        return {shard_pool(i): pool for i in range(num_shards)}

    def due(self, seen: Container[int]) -> Iterator[Submission]:
        """See Stage.due."""
        ready = [*self._late, *self._checkpoints.ready(seen)]
        self._late = [k for k in ready if not self._has_weights(k)]
        for k in ready:
            units = self._missing(k)
            if not units or k in self._late:
                continue
            self._bars.begin(k, units)
            if self._sharded is not None:
                self._sharded.submit(k, units)
            else:
                num_masks, own = self._work.seen.masks_at(k)
                weights = self._weights(k)
                for unit in units:
                    yield Submission(EVALUATE, unit, (own, *weights), num_masks=num_masks)
        yield from self._steps
        self._steps.clear()

    def keep(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """See Stage.keep."""
        ended = []
        for outcome in outcomes:
            whole = [outcome] if self._sharded is None else self._sharded.settle(outcome)
            for one in whole:
                if one.error is None:
                    details = dict(one.result)
                    rows = details.pop(one.unit.table)
                    self._work.files.keep(one.unit, rows, details)
                    self._work.metrics.evaluated(one.unit, rows)
                    self._bars.add(one.unit, rows)
            ended += whole
        return ended

    def show(self, running: Mapping[str, float]) -> None:
        """Do nothing, because the bars count only results that are on disk."""

    def _has_weights(self, k: int) -> bool:
        """Return whether the weights of a checkpoint exist, or training will not make them."""
        run = self._work.run
        if run.read_only or not run.spec.capabilities.trains_weights:
            return True
        return run.store.shared.has(weights_after(run.spec, k))

    def _weights(self, k: int) -> tuple[Any, ...]:
        """Return the trained weights of a checkpoint as arguments of the worker's `run`.

        Raises:
            CorruptMask: the weights are missing or damaged.
        """
        run = self._work.run
        if not run.spec.capabilities.trains_weights:
            return ()
        return (self._share(run.store.shared.read(weights_after(run.spec, k))),)

    def _units(self, k: int) -> list[EvaluationUnit]:
        return evaluation_units(self._config, k, self._work.run.own)

    def _missing(self, k: int) -> list[EvaluationUnit]:
        return self._work.files.missing(self._units(k))
