"""A stage: one kind of work on a run, such as training. A command names the stages it runs.

A stage knows no other stage. It says which work units can be submitted, and keeps their results;
harness/driver/loop.py does the rest. To add one, write a class like those of `train.py`,
`evaluate.py` and `recall.py`, and name it in the list of a command.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from harness.executors.protocol import Outcome, Pool


@dataclass(frozen=True)
class Submission:
    """A work unit that can be done now.

    Attributes:
        pool: the name of the pool that does the unit.
        unit: the work unit. Units that are under way in one pool have different names.
        arguments: what the worker's `run` gets after the unit and the masks.
        num_masks: k, where the worker's `run` gets the packed masks of tasks 0 to k - 1 after
            the unit. The driver reads and shares them once for all stages. None: no masks.
    """

    pool: str
    unit: Any
    arguments: tuple[Any, ...] = ()
    num_masks: int | None = None


@dataclass(frozen=True)
class Shared:
    """What the workers of all stages are made from.

    Attributes:
        spec: the run's RunSpec, as `share` returned it.
        train: the training images, likewise.
        test: the test images, likewise.
        share: makes a large value cheap to hand to workers; see Executor.share.
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
        """The file's name; no other unit of the run has it."""
        ...

    @property
    def num_tasks(self) -> int:
        """The checkpoint k: the unit needs the masks of tasks 0 to k - 1."""
        ...

    @property
    def num_rows(self) -> int:
        """How many rows the file has."""
        ...

    @property
    def task_ids(self) -> tuple[int, ...]:
        """The tasks that the unit asks about."""
        ...


class Stage(Protocol):
    """One kind of work on a run, from what is missing to what is kept.

    The driver calls `is_complete` first. If anything is left to do, it calls `begin` once, and
    then `due` and `keep` in turns until no unit is under way.
    """

    @property
    def does(self) -> str:
        """A verb for the screen: what a complete run has nothing left to do of."""
        ...

    def is_complete(self) -> bool:
        """Whether the results of all units are kept."""
        ...

    def asked(self) -> Sequence[TableUnit]:
        """All units that this start asks for, whether their files exist or not.

        Empty for a stage whose results are not files of tables. The end table shows these files,
        and a start with failures names the checkpoints that lack some.
        """
        ...

    def begin(self, shared: Shared) -> Mapping[str, Pool]:
        """Log and show what is left to do.

        Returns:
            The pools that the units need, by name. Two stages that name the same pool must mean
            the same workers. On Ray a pool that make_executor does not size is as large as
            the evaluation pool. Serially, a later pool's units go first.
        """
        ...

    def due(self, committed: Container[int]) -> Iterable[Submission]:
        """The units that can be submitted now, each once.

        Args:
            committed: the tasks whose masks are committed.
        """
        ...

    def keep(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Make durable what this stage's units brought. It is durable once this returns.

        Args:
            outcomes: units of this stage that ended together.

        Returns:
            The outcomes of units that have ended for good. Those with an error are set aside and
            noted in the table `failures`; the others are deleted from it. A unit that `due`
            will submit again is not among them.
        """
        ...

    def show(self, running: Mapping[str, float]) -> None:
        """Show the units under way, several times a second.

        Args:
            running: for each pool the number of units under way, each counted by the share of it
                that is done.
        """
        ...
