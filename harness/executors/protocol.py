"""Run work units in this process or on Ray actors, behind one interface.

The driver submits units to pools by name and collects outcomes. The driver does not know where the
units run. The serial executor is the reference: the Ray executor must give the same rows, except
for times.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

# A unit that fails this many times is set aside, so that one bad task cannot stop a run.
MAX_TRIES = 3

T = TypeVar("T")

Worker = Any  # an object with the methods run(unit, *arguments) and progress()


@dataclass(frozen=True)
class Outcome:
    """The end of a unit: its result, or the error of its last try.

    Attributes:
        pool: the name of the pool that did the unit.
        unit: the work unit.
        result: the value that the worker's `run` returned; None if the unit failed.
        error: the type, the message and the line of code of the error; None if the unit succeeded.
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
        factory: makes a worker from `arguments` and the keyword argument `name`.
        arguments: shared values, as Executor.share returned them.
        runs_alone_after: the name of another pool; this pool has fewer actors while the other pool
            has work. None: the number of actors is always the same.
    """

    factory: Callable[..., Worker]
    arguments: tuple[Any, ...]
    runs_alone_after: str | None = None


class Executor(Protocol):
    """The common interface of all executors."""

    def runs_here(self) -> bool:
        """Return whether all workers run on the driver's machine."""
        ...

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function on a machine that trains, with one thread's share of it.

        On a cluster this is a worker machine, which may differ from the driver's machine. If the
        machines of a cluster differ, any of them may be chosen.
        """
        ...

    def share(self, value: Any) -> Any:
        """Make a large value cheap to send to many workers and units.

        Returns:
            The value or a reference to it, for use as an argument of workers and units.
        """
        ...

    def start(self, pools: Mapping[str, Pool]) -> None:
        """Set the pools, by name, to which units can be submitted."""
        ...

    def submit(self, pool: str, unit: Any, *arguments: Any) -> None:
        """Add a unit to the queue of a pool; a worker then calls run(unit, *arguments)."""
        ...

    def busy(self) -> bool:
        """Return whether any unit is queued or running."""
        ...

    def poll(self) -> list[Outcome]:
        """Wait a short time for units to end, and return their outcomes, possibly none."""
        ...

    def running(self) -> dict[str, float]:
        """Return the number of units under way, by pool name.

        Each unit counts as the share of it that is done, from 0 to 1.
        """
        ...

    def describe(self) -> str:
        """Describe the executor in one log line."""
        ...

    def close(self) -> None:
        """Stop all work immediately."""
        ...
