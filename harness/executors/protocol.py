"""Run work units in this process or on Ray actors, behind one interface.

The driver submits units to pools by name and collects outcomes; it neither knows
nor sees where they ran. The serial executor is the reference.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

# A unit that fails this often is set aside, so that one bad task cannot stop a run.
MAX_TRIES = 3

Worker = Any  # has run(unit, *arguments) and progress()


@dataclass(frozen=True)
class Outcome:
    """How a unit ended: with a result, or with the error of its last try."""

    pool: str
    unit: Any
    result: Any = None
    error: str | None = None


@dataclass(frozen=True)
class Pool:
    """Workers of one kind.

    Attributes:
        factory: makes a worker from its arguments and, by keyword, its name.
        arguments: shared values, as Executor.share returned them.
        runs_alone_after: a pool during whose work this one has fewer actors.
    """

    factory: Callable[..., Worker]
    arguments: tuple[Any, ...]
    runs_alone_after: str | None = None


class Executor(Protocol):
    """Where work units run."""

    def share(self, value: Any) -> Any:
        """Make a large value cheap to hand to many workers and units."""
        ...

    def start(self, pools: Mapping[str, Pool]) -> None:
        """Name the pools that units can be submitted to."""
        ...

    def submit(self, pool: str, unit: Any, *arguments: Any) -> None:
        """Queue a unit; its worker calls run(unit, *arguments)."""
        ...

    def busy(self) -> bool:
        """Whether any unit is queued or running."""
        ...

    def poll(self) -> list[Outcome]:
        """Wait a moment at most for units to end; possibly none has."""
        ...

    def running(self) -> dict[str, float]:
        """How many units are under way in each pool, counted by the share that is done."""
        ...

    def describe(self) -> str:
        """What runs the work, for people."""
        ...

    def close(self) -> None:
        """Stop all work, at once."""
        ...
