"""The worker inside an actor: it has one worker for each run of the command.

All runs of a command share the actors. So an actor that has ended a unit of one run can continue
with a unit of another run.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.plan.units import RunUnit
from harness.workers.images import own
from supsup_core.data import ImageSet


class RunsWorker:
    """A worker of one pool, for units of several runs.

    Args:
        factory: a function or a class that makes the worker of one run. It is called with the
            arguments of the run, and with the worker's name as the keyword argument `name`.
        places: a mapping from the label of a run to the arguments of its worker. An argument is
            given by its index in `values`.
        values: the arguments of all runs. Runs with the same images share one copy of them.
        name: the worker's name.
    """

    def __init__(
        self,
        factory: Callable[..., Any],
        places: Mapping[str, Sequence[int]],
        *values: Any,
        name: str,
    ) -> None:
        owned = [own(value) if isinstance(value, ImageSet) else value for value in values]
        self._workers = {
            run: factory(*(owned[place] for place in of_run), name=name)
            for run, of_run in places.items()
        }
        self._now = next(iter(self._workers.values()))

    def progress(self) -> float:
        """Return the fraction of the current unit that is done, from 0 to 1.

        Another thread calls this method while `run` is busy.
        """
        done: float = self._now.progress()
        return done

    def run(self, unit: RunUnit, *arguments: Any) -> Any:
        """Do a unit by the worker of its run, and return the result."""
        self._now = self._workers[unit.run]
        return self._now.run(unit.unit, *arguments)
