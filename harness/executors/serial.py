"""The executor that runs work units in this process: the reference for the Ray executor."""

from collections.abc import Callable, Mapping
from typing import Any

from harness.errors import Failure, UserError
from harness.executors.protocol import (
    MAX_TRIES,
    Outcome,
    Pool,
    T,
    Trainers,
    Worker,
    is_device_error,
)
from harness.executors.turns import TurnQueue
from harness.plan.device import pick_device


class SerialExecutor:
    """An executor that runs one unit after another in this process.

    Evaluation units run before training units.

    Args:
        on_gpu: whether training uses a GPU; None: it does if this machine has one.
    """

    def __init__(self, on_gpu: bool | None = None) -> None:
        self._on_gpu = on_gpu
        self._pools: Mapping[str, Pool] = {}
        self._workers: dict[str, Worker] = {}
        self._queues: dict[str, TurnQueue[tuple[Any, tuple[Any, ...]]]] = {}

    def trainers(self) -> Trainers:
        """Describe the only worker."""
        on_gpu = pick_device().type != "cpu" if self._on_gpu is None else self._on_gpu
        return Trainers(1, float(on_gpu))

    def runs_here(self) -> bool:
        """Return True, because all units run in this process."""
        return True

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call the function in this process."""
        return function(*arguments)

    def share(self, value: Any) -> Any:
        """Return the value itself, because all workers are in this process."""
        return value

    def start(self, pools: Mapping[str, Pool]) -> None:
        """Set the pools. A worker is made when the first unit of its pool runs."""
        self._pools = pools
        self._queues = {name: TurnQueue() for name in pools}

    def submit(self, pool: str, unit: Any, *arguments: Any) -> None:
        """Add a unit to the queue of a pool."""
        self._queues[pool].append(unit.run, (unit, arguments))

    def forget(self, run: str) -> None:
        """Remove the queued units of a run."""
        for queue in self._queues.values():
            queue.drop(run)

    def busy(self) -> bool:
        """Return whether any unit is queued."""
        return any(self._queues.values())

    def poll(self) -> list[Outcome]:
        """Run the next unit, and return its outcome.

        If the unit fails MAX_TRIES times, the outcome has the error of the last try, as on Ray.

        Raises:
            UserError: the GPU has failed.
        """
        # The last pool goes first: committed masks are evaluated before more masks are trained.
        name = next(name for name in reversed(self._queues) if self._queues[name])
        if name not in self._workers:
            pool = self._pools[name]
            self._workers[name] = pool.factory(*pool.arguments, name="serial")
        unit, arguments = self._queues[name].popleft()
        for last in (False,) * (MAX_TRIES - 1) + (True,):
            try:
                return [Outcome(name, unit, self._workers[name].run(unit, *arguments))]
            except Exception as error:
                if is_device_error(error):
                    # Every later unit would fail too. A new process can use the GPU again.
                    reason = str(error).strip().splitlines()[0]
                    raise UserError(
                        f"the GPU must compute all units of this process, got {reason}: type the "
                        "same command again to go on"
                    ) from error
                if last:
                    failure = Failure.of(error)
                    return [Outcome(name, unit, error=failure.line, traceback=failure.traceback)]
        raise AssertionError("the last try must return an outcome")

    def running(self, run: str = "") -> dict[str, float]:
        """Return an empty mapping, because no unit runs between two calls of `poll`."""
        return {}

    def describe(self) -> str:
        """Describe the executor in one log line."""
        return "serial: everything in this process"

    def close(self) -> None:
        """Delete the workers."""
        self._workers.clear()
