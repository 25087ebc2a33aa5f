"""One start of work on a run: what is left to do, and what has come of it."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import pyarrow as pa

from harness.config.schema import AUTO, Config, TrainConfig
from harness.data.dataset import Dataset
from harness.driver.failures import Failures, failed_tasks
from harness.driver.sharding import ShardedEvaluation
from harness.driver.start import pools
from harness.executors.protocol import MAX_TRIES, Executor, Outcome
from harness.places.places import Place, each, put_aside
from harness.plan.units import (
    Checkpoints,
    EvaluationUnit,
    TrainUnit,
    WorkUnit,
    evaluation_units,
    recall_units,
    train_units,
)
from harness.reporting.display import Display
from harness.reporting.metrics import NoMetrics, make_metrics
from harness.run.committed import Committed
from harness.run.directory import Run
from harness.run.refusals import readable_path_errors
from harness.tables.files import read_table_file, write_table
from harness.tables.schemas import SCHEMAS
from harness.workers.training import TrainedUnit

logger = logging.getLogger("harness")

TRAIN, EVALUATE = "train", "evaluate"  # the pools

TRAINING = "training"  # the bar

DONE, FAILED = 0, 1  # exit codes

UNITS_AHEAD = 4096


@dataclass
class _Mean:
    """A running mean; None before the first value."""

    total: float = 0.0
    count: int = 0

    def add(self, values: Iterable[float]) -> None:
        for value in values:
            self.total += value
            self.count += 1

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


@dataclass
class _Bar:
    """What is shown of a checkpoint."""

    name: str
    done: int = 0
    accuracies: _Mean = field(default_factory=_Mean)


class Evaluator:
    """One start of work on a run: what is left to evaluate, and what has come of it.

    Args:
        run: opened, its lock held.
        display: shows how far it is.
    """

    does = "evaluate"
    cure = "go on with the run by harness/scale.py"  # of a damaged mask

    def __init__(self, run: Run, display: Display) -> None:
        self._run, self._display = run, display
        self._config = run.spec.config
        self._committed = Committed(run.store.capacity)
        self._accuracies = _Mean()  # of the committed tasks
        self._note(run.store.tasks(["task_id", "row_crc32c", "accuracy"]))
        self._checkpoints = Checkpoints(self._config.evaluate.checkpoints)
        self._bars: dict[int, _Bar] = {}
        self._failed: list[Outcome] = []  # of this start
        self._failures = Failures(run.failures)
        self._failures.forget_done(self._was_done)
        self._sharded: ShardedEvaluation | None = None
        self._metrics = NoMetrics()

    def _was_done(self, pool: str, unit: str, task_id: int) -> bool:
        if pool == TRAIN:
            return task_id in self._committed
        tables = (self._run.evaluations, self._run.reservoir)
        return any((folder / f"{unit}.parquet").is_file() for folder in tables)

    def _note(self, tasks: pa.Table) -> None:
        """Take in rows of the log."""
        self._committed.add(tasks["task_id"].to_numpy(), tasks["row_crc32c"].to_numpy())
        self._accuracies.add(tasks["accuracy"].to_numpy())

    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return not any(self._missing_evaluations(k) for k in self._config.evaluate.checkpoints)

    def state(self) -> str:
        """What a start that is stopped leaves."""
        return "what was evaluated is kept"

    def work(self, typed: Config, data: Dataset, executor: Executor) -> None:
        """Do all that is left.

        Args:
            typed: the configuration of this start: which executor, how many actors.
            data: the data set.
            executor: made for it; closed here.
        """
        num_shards = typed.actors.shards
        self._metrics = make_metrics(self._directory, executor)
        if num_shards > 1:
            self._sharded = ShardedEvaluation(executor, num_shards, self._read)
        try:
            with self._display:
                executor.start(pools(self._run, data, executor.share, num_shards))
                self._begin(typed, executor)
                self._submit_ready(executor)
                while executor.busy():
                    self._settle(executor, executor.poll())
                    self._show(executor.running())
                    self._metrics.watch()
        finally:
            executor.close()

    def _begin(self, typed: Config, executor: Executor) -> None:
        """Say what is done, and submit what depends on nothing."""
        logger.info("evaluating, executor %s; run directory %s", typed.executor, self._directory)

    def _settle(self, executor: Executor, outcomes: Sequence[Outcome]) -> None:
        """Keep what came of some units."""
        for outcome in outcomes:
            if outcome.pool == TRAIN or self._sharded is None:
                self._finish(outcome)
            else:
                for whole in self._sharded.settle(outcome):
                    self._finish(whole)

    def _finish(self, outcome: Outcome) -> None:
        if outcome.error is None:
            self._keep(outcome.unit, outcome.result)
            with readable_path_errors(self._directory):
                self._failures.forget(outcome.unit.name)
            return
        logger.warning("set aside %s: %s", outcome.unit.name, outcome.error)
        self._failed.append(outcome)
        self._metrics.set_aside(outcome.pool)
        with readable_path_errors(self._directory):
            self._failures.add(outcome)

    def _show(self, running: dict[str, float]) -> None:
        """Show the units under way, which are counted by the share that is done."""

    @property
    def _directory(self) -> Place:
        return self._run.directory

    def _submit_ready(self, executor: Executor) -> None:
        for k in self._checkpoints.ready(self._committed):
            units = self._missing_evaluations(k)
            if not units:
                continue
            if self._sharded is not None:
                whole = [unit for unit in units if isinstance(unit, EvaluationUnit)]
                self._sharded.submit(k, whole)  # no reservoir goes with shards (config.py)
            else:
                rows = executor.share(self._read(range(k)))
                for unit in units:
                    executor.submit(EVALUATE, unit, rows)
            self._bars[k] = _Bar(f"evaluating {k} masks")
            num_rows = sum(unit.num_rows for unit in units)
            self._display.add(self._bars[k].name, num_rows, 0, "rows")

    def _read(self, ids: Sequence[int]) -> np.ndarray:
        """Committed masks, packed, each checked."""
        return self._run.store.read(ids, self._committed.crcs(ids))

    def _units(self, k: int) -> Sequence[WorkUnit]:
        """All units of a checkpoint."""
        units: list[WorkUnit] = [*evaluation_units(self._config, k, self._run.own)]
        if self._config.evaluate.reservoir:
            units += recall_units(self._config, k)
        return units

    def _missing_evaluations(self, k: int) -> list[WorkUnit]:
        units = self._units(k)
        kept = each(self._is_kept, units, self._directory)
        return [unit for unit, there in zip(units, kept, strict=True) if not there]

    def _is_kept(self, unit: WorkUnit) -> bool:
        """Whether a unit's rows are there, whole; a broken file is put aside."""
        path = self._evaluation_file(unit)
        try:
            read_table_file(path, SCHEMAS[unit.table])
        except FileNotFoundError:
            return False
        except ValueError as error:
            logger.warning("damaged: %s; evaluating again", error)
            put_aside(path)
            return False
        return True

    def _evaluation_file(self, unit: WorkUnit) -> Place:
        return self._directory / unit.table / f"{unit.name}.parquet"

    def evaluation_files(self) -> list[Place]:
        """What there is of the evaluations that were asked for; a run may hold others too."""
        checkpoints = self._config.evaluate.checkpoints
        paths = [self._evaluation_file(unit) for k in checkpoints for unit in self._units(k)]
        there = each(lambda path: path.is_file(), paths, self._directory)
        return [path for path, is_there in zip(paths, there, strict=True) if is_there]

    def _keep(self, unit: WorkUnit, rows: pa.Table) -> None:
        with readable_path_errors(self._directory):
            write_table(rows, self._evaluation_file(unit))
        self._metrics.evaluated(unit, rows)
        bar = self._bars[unit.num_tasks]
        bar.done += len(rows)
        of_labels = "accuracy_gnu" if isinstance(unit, EvaluationUnit) else "accuracy"
        bar.accuracies.add(rows[of_labels].to_pylist())
        self._display.update(bar.name, bar.done, bar.accuracies.value)

    def report_failures(self) -> int:
        """Name what was not evaluated and what was set aside; the exit code that follows."""
        if not self._failed:
            return DONE
        late = [k for k in self._config.evaluate.checkpoints if self._missing_evaluations(k)]
        if late:
            logger.error("not evaluated whole, for want of what failed: checkpoints %s", late)
        for outcome in self._failed:
            tasks = ", ".join(map(str, failed_tasks(outcome.unit)))
            logger.error(
                "failed three times: %s (tasks %s): %s", outcome.unit.name, tasks, outcome.error
            )
        return FAILED


class Driver(Evaluator):
    """One start of the main job: it trains what is missing, and evaluates meanwhile."""

    does = "train or evaluate"
    cure = "type the same command again"

    def __init__(self, run: Run, display: Display) -> None:
        super().__init__(run, display)
        self._block = int(run.spec.config.train.block)  # resolved: no longer auto
        self._shown = 0.0  # tasks
        self._to_train = train_units(self._config.tasks, self._block, self._committed)
        self._under_way = 0  # training units that are submitted and have not ended
        self._tries: dict[int, int] = {}  # of tasks that failed alone

    @property
    def num_committed(self) -> int:
        """Tasks whose masks are committed."""
        return len(self._committed)

    def is_complete(self) -> bool:
        """Whether nothing is left to train or evaluate."""
        return self.num_committed == self._config.tasks and super().is_complete()

    def state(self) -> str:
        """How many masks there are."""
        return f"{self.num_committed} of {self._config.tasks} tasks are committed"

    def _begin(self, typed: Config, executor: Executor) -> None:
        logger.info("%s; run directory %s", executor.describe(), self._directory)
        logger.info("training %s", self._described(typed.train))
        total = self._config.tasks
        if self.num_committed < total:
            self._display.add(TRAINING, total, self.num_committed, "tasks")
            self._display.update(TRAINING, self.num_committed, self._accuracies.value)
        self._feed(executor)

    def _described(self, typed: TrainConfig) -> str:
        """What `auto` came to; a run keeps what it began with."""
        train = self._config.train
        products = f"products in {train.dtype}{' (auto)' if typed.dtype == AUTO else ''}"
        block = f"blocks of {train.block} tasks{' (auto)' if typed.block == AUTO else ''}"
        return f"by recipe {train.name}: {products}, {block}"

    def _feed(self, executor: Executor) -> None:
        """Keep more units submitted than any cluster has actors, not all that there are."""
        for unit in islice(self._to_train, UNITS_AHEAD - self._under_way):
            self._submit(executor, unit)

    def _submit(self, executor: Executor, unit: TrainUnit) -> None:
        self._under_way += 1
        executor.submit(TRAIN, unit)

    def _settle(self, executor: Executor, outcomes: Sequence[Outcome]) -> None:
        ended = [outcome for outcome in outcomes if outcome.pool == TRAIN]
        trained = [outcome.result for outcome in ended if outcome.error is None]
        self._under_way -= len(ended)
        self._commit([unit for unit in trained if len(unit.tasks)])
        for unit in trained:
            self._try_again(executor, unit)
        self._feed(executor)
        self._submit_ready(executor)
        others = [o for o in outcomes if o.pool != TRAIN or o.error is not None]
        super()._settle(executor, others)

    def _commit(self, trained: Sequence[TrainedUnit]) -> None:
        """Commit units that ended together."""
        if not trained:
            return
        with readable_path_errors(self._directory):
            table = self._run.store.commit_together(
                [(unit.unit.name, unit.tasks, unit.rows) for unit in trained]
            )
            for unit in trained:
                self._failures.forget(unit.unit.name, unit.tasks["task_id"].to_pylist())
        self._note(table)
        self._metrics.committed(len(table), self._accuracies.value)
        self._tell(self.num_committed)

    def _try_again(self, executor: Executor, trained: TrainedUnit) -> None:
        """Submit once more the tasks that failed alone, or set them aside."""
        again = []
        for task_id, error in trained.failed.items():
            self._tries[task_id] = self._tries.get(task_id, 0) + 1
            if self._tries[task_id] < MAX_TRIES:
                again.append(task_id)
            else:
                self._finish(Outcome(TRAIN, replace(trained.unit, missing=(task_id,)), error=error))
        if again:
            self._submit(executor, replace(trained.unit, missing=tuple(again)))

    def _show(self, running: dict[str, float]) -> None:
        if under_way := running.get(TRAIN, 0.0) * self._block:
            self._tell(min(self.num_committed + under_way, self._config.tasks))

    def _tell(self, done: float) -> None:
        # What has ended and is not committed yet is in neither count: no step back for that.
        self._shown = max(self._shown, done)
        self._display.update(TRAINING, self._shown, self._accuracies.value)
