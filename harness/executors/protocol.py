"""The common interface of the executors, which run work units in this process or on Ray actors.

The driver submits units to pools by name, and collects their outcomes. It does not know where the
units run. The serial executor is the reference: the Ray executor must give the same table rows,
except for times.

All runs of a command share one executor. Each unit has the attributes `name` and `run`, the label
of its run. In a pool's queue, the runs take turns.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

# A unit that fails this number of times is set aside: it is not tried again in this start. So one
# bad task cannot stop a run.
MAX_TRIES = 3

T = TypeVar("T")

Worker = Any  # an object with the methods run(unit, *arguments) and progress()


_DEVICE_ERROR = re.compile("CUDA error|CUBLAS_STATUS|CUDNN_STATUS|HIP error|device-side assert")


def is_device_error(error: BaseException) -> bool:
    """Return whether an error says that a GPU has failed.

    After such an error, every later call of the GPU in the same process fails too. So the error
    says nothing about the unit.
    """
    return _DEVICE_ERROR.search(str(error)) is not None


@dataclass(frozen=True)
class Outcome:
    """The end of a unit: its result, or the error of its last try.

    Attributes:
        pool: the name of the pool in which the unit ran.
        unit: the work unit.
        result: the value that the worker's `run` returned; None if the unit failed.
        error: one line with the error's type, its message, and the file and line number of its
            origin; None if the unit succeeded.
        traceback: the traceback of the error; "" if there is none.
    """

    pool: str
    unit: Any
    result: Any = None
    error: str | None = None
    traceback: str = ""


@dataclass(frozen=True)
class Pool:
    """A group of workers of one kind.

    Attributes:
        factory: a function that makes a worker. It is called with `arguments`, and with the
            worker's name as the keyword argument `name`.
        arguments: arguments of `factory`, in the form that Executor.share returned.
        runs_alone_after: the name of another pool. While that pool has work, this pool has fewer
            actors than afterwards. None: the number of actors does not change.
    """

    factory: Callable[..., Worker]
    arguments: tuple[Any, ...]
    runs_alone_after: str | None = None


@dataclass(frozen=True)
class Trainers:
    """The workers that train.

    Attributes:
        number: the largest number of workers at one time.
        gpus: the fraction of a GPU that each worker has; 0 if the workers train on CPUs.
    """

    number: int
    gpus: float

    @property
    def on_gpus(self) -> bool:
        """Whether the workers train on GPUs."""
        return self.gpus > 0


class Executor(Protocol):
    """The common interface of all executors."""

    def trainers(self) -> Trainers:
        """Describe the workers that train."""
        ...

    def runs_here(self) -> bool:
        """Return whether all workers run on the driver's machine."""
        ...

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function on a machine that trains, with the CPUs and GPUs of one training worker.

        On a cluster this is a worker machine, which may differ from the driver's machine. If the
        worker machines differ from each other, any of them may be chosen.
        """
        ...

    def share(self, value: Any) -> Any:
        """Store a large value once, so that it is cheap to send to many workers.

        Returns:
            The value itself, or a reference to it. Pass it to workers or to `submit` as an
            argument.
        """
        ...

    def start(self, pools: Mapping[str, Pool]) -> None:
        """Set the pools to which units can be submitted.

        Args:
            pools: a mapping from name to pool.
        """
        ...

    def submit(self, pool: str, unit: Any, *arguments: Any) -> None:
        """Add a unit to a pool's queue. A worker of this pool will call run(unit, *arguments)."""
        ...

    def forget(self, run: str) -> None:
        """Remove the queued units of a run. Its running units go on."""
        ...

    def busy(self) -> bool:
        """Return whether any unit is queued or running."""
        ...

    def poll(self) -> list[Outcome]:
        """Wait a short time for units to end, and return the outcomes of the units that have ended.

        The list may be empty.
        """
        ...

    def running(self, run: str = "") -> dict[str, float]:
        """Return a mapping from pool name to the total progress of a run's running units.

        The progress of one unit is the fraction of the unit that is done, from 0 to 1.

        Args:
            run: the label of the run.
        """
        ...

    def describe(self) -> str:
        """Describe the executor in one log line."""
        ...

    def close(self) -> None:
        """Stop all work immediately."""
        ...
