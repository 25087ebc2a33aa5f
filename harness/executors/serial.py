"""Work units in this process: the reference."""

from collections import deque
from collections.abc import Mapping
from typing import Any

from harness.executors.protocol import MAX_TRIES, Outcome, Pool, Worker


class SerialExecutor:
    """Everything in this process, one unit after another, evaluation first."""

    def __init__(self) -> None:
        self._pools: Mapping[str, Pool] = {}
        self._workers: dict[str, Worker] = {}
        self._queues: dict[str, deque[tuple[Any, tuple[Any, ...]]]] = {}

    def share(self, value: Any) -> Any:
        """Hand the value itself on."""
        return value

    def start(self, pools: Mapping[str, Pool]) -> None:
        """Note the pools; a worker is made when it has work."""
        self._pools = pools
        self._queues = {name: deque() for name in pools}

    def submit(self, pool: str, unit: Any, *arguments: Any) -> None:
        """Queue a unit."""
        self._queues[pool].append((unit, arguments))

    def busy(self) -> bool:
        """Whether any unit is queued."""
        return any(self._queues.values())

    def poll(self) -> list[Outcome]:
        """Run the next unit; an error of its own is its outcome, as on Ray."""
        # The last pool first: what depends on committed masks is due before more of them.
        name = next(name for name in reversed(self._queues) if self._queues[name])
        if name not in self._workers:
            pool = self._pools[name]
            self._workers[name] = pool.factory(*pool.arguments, name="serial")
        unit, arguments = self._queues[name].popleft()
        for last in (False,) * (MAX_TRIES - 1) + (True,):
            try:
                return [Outcome(name, unit, self._workers[name].run(unit, *arguments))]
            except Exception as error:
                if last:
                    return [Outcome(name, unit, error=f"{type(error).__name__}: {error}")]
        raise AssertionError("a try ends the loop")

    def running(self) -> dict[str, float]:
        """Nothing: between two polls no unit is under way."""
        return {}

    def describe(self) -> str:
        """This process."""
        return "serial: everything in this process"

    def close(self) -> None:
        """Forget the workers."""
        self._workers.clear()
