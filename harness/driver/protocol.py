"""A stage: one kind of work on a run, such as training. A command names its stages.

A stage knows no other stage. It names the work units that can be submitted, and keeps their
results; harness/driver/loop.py does the rest. To add a stage, write a class like the stages in
`train.py`, `evaluate.py` and `recall.py`, and add the class to the stages of a command.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from harness.data.dataset import Dataset
from harness.executors.protocol import Outcome, Pool


@dataclass(frozen=True)
class Submission:
    """A work unit that can be done now.

    Attributes:
        pool: the name of the pool that does the unit.
        unit: the work unit. Units that are under way in one pool have different names.
        arguments: further arguments of the worker's `run`, after the unit and the masks.
        num_masks: k, if the worker's `run` needs the packed masks of tasks 0 to k - 1. The masks
            are the argument after the unit. Units submitted at the same time share one copy of
            the masks. None: the worker needs no masks.
    """

    pool: str
    unit: Any
    arguments: tuple[Any, ...] = ()
    num_masks: int | None = None


@dataclass(frozen=True)
class Shared:
    """The values from which the workers of all stages are made.

    Attributes:
        spec: the run's RunSpec, as `share` returned it.
        train: the training images, as `share` returned them.
        test: the test images, as `share` returned them.
        share: a function that makes a large value cheap to send to workers; see Executor.share.
    """

    spec: Any
    train: Any
    test: Any
    share: Callable[[Any], Any]


class TableUnit(Protocol):
    """A work unit whose result is one file of a table: TABLE/NAME.parquet in the run directory."""

    @property
    def table(self) -> str:
        """The table's name, a key of harness.tables.schemas.SCHEMAS."""
        ...

    @property
    def name(self) -> str:
        """The file's name without .parquet; no other unit of the run has this name."""
        ...

    @property
    def num_tasks(self) -> int:
        """The checkpoint k: the unit needs the masks of tasks 0 to k - 1."""
        ...

    @property
    def num_rows(self) -> int:
        """The number of rows of the file."""
        ...

    @property
    def way(self) -> str:
        """The way in which the rows were obtained, in a few words, such as "one_shot H"."""
        ...

    @property
    def task_ids(self) -> tuple[int, ...]:
        """The tasks that the unit asks about."""
        ...


class Stage(Protocol):
    """One kind of work on a run: find the missing results, do the work, and keep the results.

    The driver calls `is_complete` first. If anything is left to do, the driver calls `rehearsals`
    and `begin` once.
    Then it calls `due` and `keep` in turn until no unit is under way.
    """

    @property
    def does(self) -> str:
        """A verb for the screen, such as "train"."""
        ...

    def is_complete(self) -> bool:
        """Return whether the results of all units are kept."""
        ...

    def asked(self) -> Sequence[TableUnit]:
        """List all units that this start asks for, even if their files exist already.

        The list is empty if the stage's results are not files of tables. The end table shows the
        files of these units. A start with failures names the checkpoints whose files are missing.
        """
        ...

    def rehearsals(self, data: Dataset) -> Iterable[Callable[[], object]]:
        """Yield small computations that together call every Numba kernel of the workers.

        The driver runs them before the work begins, so that kernels compile once and in sight.
        """
        ...

    def begin(self, shared: Shared) -> Mapping[str, Pool]:
        """Log and show the work that is left to do.

        Returns:
            The pools that the units need, by name. Two stages that name the same pool must mean
            the same workers. On Ray, a pool that make_executor does not size is as large as
            the evaluation pool. The serial executor runs the units of later pools first.
        """
        ...

    def due(self, committed: Container[int]) -> Iterable[Submission]:
        """List the units that can be submitted now. A unit under way is not listed.

        Args:
            committed: the tasks whose masks are committed.
        """
        ...

    def keep(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Keep the results of this stage's units. They are on disk once this returns.

        Args:
            outcomes: the outcomes of this stage's units that ended together.

        Returns:
            The outcomes of units that will not be tried again in this start. The driver adds units
            with an error to the table `failures`, and deletes successful units from that table. If
            `due` will submit a unit again, its outcome is left out.
        """
        ...

    def show(self, running: Mapping[str, float]) -> None:
        """Show the units under way. The driver calls this several times a second.

        Args:
            running: the number of units under way, by pool name. Each unit counts as the share of
                it that is done, from 0 to 1.
        """
        ...
