"""The protocol of a stage. A stage does one kind of work on a run, such as training.

Each command has a list of stages. A stage does not know the other stages. It lists the work units
that can be submitted, and stores their results. harness/driver/loop.py submits the units. To add a
stage, write a class like the stages in `train.py`, `evaluate.py` and `recall.py`, and add the class
to the stages of a command.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from harness.data.dataset import Dataset
from harness.executors.protocol import Outcome, Pool, Trainers


@dataclass(frozen=True)
class Submission:
    """A work unit that can be done now.

    Attributes:
        pool: the name of the pool whose workers can do the unit.
        unit: the work unit. Its name differs from the names of all other units that are in progress
            in the same pool.
        arguments: further arguments of the worker's `run`, after the unit and the masks.
        num_masks: a number k, or None. With k, the worker's `run` gets the packed masks of tasks 0
            to k - 1 as the argument after the unit. Units that are submitted at the same time get
            the same copy of the masks. With None, `run` gets no masks.
    """

    pool: str
    unit: Any
    arguments: tuple[Any, ...] = ()
    num_masks: int | None = None


@dataclass(frozen=True)
class Shared:
    """The values from which the stages make their workers.

    Attributes:
        data: the data set, in the memory of the driver.
        spec: the run's RunSpec, in the form that `share` returned.
        train: the training images, in the form that `share` returned.
        test: the test images, in the form that `share` returned.
        share: a function that stores a large value once, so that it is cheap to send to workers;
            see Executor.share.
        trainers: the largest number of training workers, and whether they have GPUs.
    """

    data: Dataset
    spec: Any
    train: Any
    test: Any
    share: Callable[[Any], Any]
    trainers: Trainers


class FileUnit(Protocol):
    """A work unit whose rows are written to a file: TABLE/NAME.parquet in the run directory."""

    @property
    def table(self) -> str:
        """The table's name, a key of harness.tables.schemas.SCHEMAS."""
        ...

    @property
    def details(self) -> tuple[str, ...]:
        """Names of further tables in which the unit has a file of the same name."""
        ...

    @property
    def name(self) -> str:
        """The file's name without .parquet; no other unit of the run has this name."""
        ...


class TableUnit(FileUnit, Protocol):
    """A work unit of a checkpoint."""

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
        """A text for the screen: how the rows were computed, such as "one_shot H"."""
        ...

    @property
    def task_ids(self) -> tuple[int, ...]:
        """The tasks that the unit evaluates, or whose masks it recalls."""
        ...


class Stage(Protocol):
    """One kind of work on a run: find the missing results, do the work, and store the results.

    The driver calls `is_complete` first. If results are missing, the driver calls `rehearsals` and
    then `begin`. After that, it calls `due` and `keep` alternately, until all submitted units have
    ended.
    """

    @property
    def does(self) -> str:
        """A verb that describes the stage's work on the screen, such as "train"."""
        ...

    def is_complete(self) -> bool:
        """Return whether the results of all units are on disk."""
        ...

    def asked(self) -> Sequence[TableUnit]:
        """List the units of this start that write their results to table files.

        Units whose files already exist are listed too. The list is empty if the stage writes no
        table files. The driver uses the list for two texts: the table of results at the end, and
        the error that names the checkpoints with missing files.
        """
        ...

    def rehearsals(self, data: Dataset) -> Iterable[Callable[[], object]]:
        """Yield small computations that together call every Numba kernel of the workers.

        The driver runs them before the work begins. So each kernel is compiled only once, and the
        user sees the progress.
        """
        ...

    def begin(self, shared: Shared) -> Mapping[str, Pool]:
        """Log and show the work that is left to do, and return the pools that this work needs.

        Returns:
            A mapping from name to pool. If two stages use the same name, their pools must have the
            same workers. On Ray, a pool to which make_executor gives no size is as large as the
            evaluation pool. The serial executor runs the units of the last pool first.
        """
        ...

    def due(self, seen: Container[int]) -> Iterable[Submission]:
        """List the units that can be submitted now.

        A unit that is already submitted and has not ended is not listed.

        Args:
            seen: numbers of the tasks that can be evaluated. If the task is given in training,
                these are the tasks whose masks are committed.
        """
        ...

    def keep(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Write the results of ended units to disk. When this method returns, they are on disk.

        Args:
            outcomes: the outcomes of some units of this stage that have ended.

        Returns:
            The outcomes of the units that will not be tried again in this start. The driver adds
            the failed units to the table `failures`, and deletes the rows of the successful units
            from that table. If `due` will list a unit again, its outcome is not returned.
        """
        ...

    def show(self, running: Mapping[str, float]) -> None:
        """Show the progress of running units.

        The driver calls this method several times per second.

        Args:
            running: a mapping from pool name to the total progress of the pool's running units. The
                progress of one unit is the fraction of the unit that is done, from 0 to 1.
        """
        ...
