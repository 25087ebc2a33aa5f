"""The training stage: train a mask for every task that has no mask yet."""

import logging
from collections.abc import Callable, Container, Iterable, Mapping, Sequence, Set
from dataclasses import replace

from harness.config.names import AUTO
from harness.config.schema import Config
from harness.data.dataset import Dataset
from harness.driver.order import Order, order_for
from harness.driver.protocol import Shared, Submission, TableUnit
from harness.driver.work import Work
from harness.errors import UserError
from harness.executors.protocol import MAX_TRIES, Outcome, Pool, Trainers
from harness.plan.pools import TRAIN
from harness.plan.side_by_side import blocks_side_by_side
from harness.run.gpu_memory import mask_bytes, training_bytes
from harness.workers.rehearsal import training_rehearsals
from harness.workers.training import TrainedUnit, TrainWorker

logger = logging.getLogger("harness")

# Largest number of submitted units that have not ended. No cluster has as many actors.
UNITS_AHEAD = 4096

_BAR = "training"
_DIFFERENT_BITS = (
    "the masks of this run are trained on different devices ({}): a repetition has the same bits "
    "only if each task is trained on the same device"
)


class Train:
    """The stage that trains blocks of tasks.

    The masks of blocks that end at the same time are committed together.

    Args:
        work: the run in progress.
    """

    does = "train"

    def __init__(self, work: Work) -> None:
        self._work, self._config, self._masks = work, work.config, work.masks
        self._block = int(work.config.train.block)  # resolved: no longer auto
        self._side_by_side = 1
        self._order: Order = order_for(work.run, work.masks, 1)
        self._warned: set[str] = set()
        self._under_way = 0  # number of units that are submitted and have not ended
        self._tries: dict[int, int] = {}  # task -> failures of this task alone
        self._shown = 0.0  # length of the bar: committed tasks and progress of running units

    def is_complete(self) -> bool:
        """Return whether every task has a committed mask, and all shared data are kept."""
        lacks_data = self._work.run.store.shared.lacking(self._masks)
        return len(self._masks) == self._config.tasks and not lacks_data

    def asked(self) -> Sequence[TableUnit]:
        """Return an empty list, because masks are in the mask store and not in files of tables."""
        return ()

    def rehearsals(self, data: Dataset) -> Iterable[Callable[[], object]]:
        """See Stage.rehearsals."""
        return () if self.is_complete() else training_rehearsals(self._work.run.spec, data)

    def begin(self, shared: Shared) -> Mapping[str, Pool]:
        """See Stage.begin."""
        total, done = self._config.tasks, len(self._masks)
        if done < total:
            _check_device(self._config, shared.trainers)
        self._side_by_side = blocks_side_by_side(
            self._config, shared.trainers.number, shared.trainers.on_gpus, total - done
        )
        if self._work.run.spec.capabilities.order != "any":
            self._side_by_side = 1
        self._order = order_for(self._work.run, self._masks, self._side_by_side)
        logger.info("training %s", self._described())
        if shared.trainers.on_gpus:
            self._tell_memory(shared.trainers.gpus)
        if done < total:
            self._work.display.add(_BAR, total, done, "tasks", "task given")
            self._work.display.update(_BAR, done, self._masks.accuracy)
        return {TRAIN: Pool(TrainWorker, (shared.spec, shared.train, shared.test))}

    def due(self, seen: Container[int]) -> Sequence[Submission]:
        """List the next units to submit; see Stage.due.

        At any time, at most UNITS_AHEAD submitted units have not ended.
        """
        due = self._order.due(UNITS_AHEAD - self._under_way)
        self._under_way += len(due)
        return [Submission(TRAIN, unit, arguments) for unit, arguments in due]

    def keep(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """See Stage.keep."""
        self._under_way -= len(outcomes)
        trained = [outcome.result for outcome in outcomes if outcome.error is None]
        for unit in trained:
            self._order.ended(unit)
        self._commit([unit for unit in trained if len(unit.tasks)])
        ended = [outcome for outcome in outcomes if outcome.error is not None]
        for _ in ended:
            self._order.set_aside()
        for unit in trained:
            ended += self._ended(unit)
        return ended

    def show(self, running: Mapping[str, float]) -> None:
        """See Stage.show."""
        if under_way := running.get(TRAIN, 0.0) * self._block * self._side_by_side:
            self._tell(min(len(self._masks) + under_way, self._config.tasks))

    def _described(self) -> str:
        """Describe the training for the log.

        If a value was chosen for `auto`, it is marked with "(auto)". The run stores such values, so
        later starts use the same values.
        """
        train, typed = self._config.train, self._work.typed.train
        products = f"products in {train.dtype}{' (auto)' if typed.dtype == AUTO else ''}"
        block = f"blocks of {train.block} tasks{' (auto)' if typed.block == AUTO else ''}"
        several = f", {self._side_by_side} blocks at a time" if self._side_by_side > 1 else ""
        order = self._work.run.spec.capabilities.order
        turns = {"any": "", "sequence": " in sequence", "after_first": " after the first task"}[
            order
        ]
        return f"with recipe {train.name}: {products}, {block}{several}{turns}"

    def _tell_memory(self, share: float) -> None:
        """Log how much memory of a GPU the actors take, if it can be computed.

        Args:
            share: the fraction of a GPU that a training actor reserves.
        """
        spec = self._work.run.spec
        needed = training_bytes(spec, self._side_by_side)
        if needed is not None:
            logger.info(
                "each training actor takes up to %.1f GB of its GPU for work units of %d tasks, "
                "and a GPU has room for %d such actors (each reserves %g of it); the masks of an "
                "evaluation actor take up to %.1f GB",
                *(needed / 1e9, self._block * self._side_by_side, int(1 / share + 1e-9), share),
                mask_bytes(spec) / 1e9,
            )

    def _commit(self, trained: Sequence[TrainedUnit]) -> None:
        """Commit the masks of units that ended together."""
        if trained:
            num_committed = self._masks.commit(
                [(unit.unit.name, unit.tasks, unit.rows) for unit in trained]
            )
            if found := [text for unit in trained for text in unit.uniform]:
                logger.warning("masks without any information: %s", ", ".join(found))
            self._warn({text for unit in trained for text in unit.warnings})
            if len(devices := self._masks.devices) > 1:
                self._warn({_DIFFERENT_BITS.format(", ".join(devices))})
            self._work.metrics.committed(num_committed, len(self._masks), self._masks.accuracy)
            self._tell(len(self._masks))

    def _warn(self, texts: Set[str]) -> None:
        """Log each warning once."""
        for warning in sorted(texts - self._warned):
            self._warned.add(warning)
            logger.warning("%s", warning)

    def _ended(self, trained: TrainedUnit) -> list[Outcome]:
        """Return the outcomes of the unit's tasks that will not be trained again in this start.

        These are the committed tasks, and the tasks that have failed MAX_TRIES times. The other
        tasks of the unit will be tried again.
        """
        unit, again = trained.unit, []
        done = tuple(trained.tasks["task_id"].to_pylist())
        ended = [Outcome(TRAIN, replace(unit, missing=done))]
        for task_id, failure in trained.failed.items():
            self._tries[task_id] = self._tries.get(task_id, 0) + 1
            if self._tries[task_id] < MAX_TRIES:
                again.append(task_id)
            else:
                alone = replace(unit, missing=(task_id,))
                ended.append(Outcome(TRAIN, alone, error=failure.line, traceback=failure.traceback))
                self._order.set_aside()
        if again:
            self._order.again(unit.only(tuple(again)))
        return ended

    def _tell(self, done: float) -> None:
        # Between the end of a unit and its commit, the unit counts neither as running nor as
        # committed. Without `max`, the bar would move back during this time.
        self._shown = max(self._shown, done)
        committed = len(self._masks)
        self._work.display.update(
            _BAR, committed, self._masks.accuracy, under_way=self._shown - committed
        )


def _check_device(config: Config, trainers: Trainers) -> None:
    """Refuse to continue a run on another kind of device, because its masks would have other bits.

    Raises:
        UserError: the run began on GPUs and the training actors have none, or the other way round.
    """
    if (config.train.device != "cpu") == trainers.on_gpus:
        return
    found = "cuda" if trainers.on_gpus else "cpu"
    advice = (
        "type train.device=cpu to go on without GPUs"
        if trainers.on_gpus
        else "go on where Ray has GPUs, or choose another run_dir"
    )
    raise UserError(
        f"train.device must be {config.train.device}, with which the run began, got {found} for "
        f"the training actors: {advice}"
    )
