"""The executor that runs work units on Ray actors."""

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.errors import Failure, UserError, origin
from harness.executors.protocol import (
    MAX_TRIES,
    Outcome,
    Pool,
    T,
    Trainers,
    is_device_error,
)
from harness.executors.ray_start import SECONDS_OF_SILENCE, call_on, is_alone, start_ray
from harness.executors.turns import TurnQueue
from harness.plan.pools import PoolSize

# Pause after the driver has asked all busy actors for their progress. With hundreds of actors,
# asking takes the driver some time.
SECONDS_BETWEEN_QUESTIONS = 0.25

# Largest number of results in the driver's memory at one time, and in one commit. Other results
# wait at their actors, so a slow disk slows the actors down and does not fill the driver's memory.
RESULTS_AT_ONCE = 64

_USER_ERROR = re.compile(r"harness\.errors\.UserError: (.+)")


def capacity(resources: Mapping[str, float]) -> tuple[int, float]:
    """Return the numbers of CPUs and GPUs that a cluster has, or can have at its largest size.

    Ray's launcher starts a machine only when actors need it, and Ray does not report the largest
    size of the cluster. So the files in cluster/ give the head machine two more resources, max_cpus
    and max_gpus: the numbers of CPUs and GPUs at the largest size.

    Args:
        resources: a mapping from resource name to amount, as `ray.cluster_resources` returns it.

    Returns:
        The number of CPUs and the number of GPUs.
    """
    cpus = max(resources.get("CPU", 0.0), resources.get("max_cpus", 0.0))
    return int(cpus), max(resources.get("GPU", 0.0), resources.get("max_gpus", 0.0))


@dataclass
class _Entry:
    """A queued or running unit, the further arguments of `run`, and the number of tries so far."""

    unit: Any
    arguments: tuple[Any, ...]
    tries: int = 0


@dataclass
class _RayPool:
    """A pool, with its queue of units, its actors and its running units."""

    pool: Pool
    size: PoolSize
    queue: TurnQueue[_Entry] = field(default_factory=TurnQueue)
    starting: dict[Any, Any] = field(default_factory=dict)  # reference of a start -> actor
    idle: list[Any] = field(default_factory=list)
    running: dict[Any, tuple[Any, _Entry]] = field(default_factory=dict)  # result -> (actor, entry)
    num_started: int = 0
    is_over: bool = False  # whether the pool had no work when the driver polled last

    @property
    def busy(self) -> bool:
        return bool(self.queue or self.running)


class RayExecutor:
    """An executor that runs units on Ray actors, and tries a unit again if its actor dies.

    If an actor dies, this class makes a new actor. Ray's own restarts are off, for two reasons. A
    restarted actor has lost its state. And a unit that kills its actor must not be tried more than
    MAX_TRIES times. A unit is sent only to an actor that has started. So no unit waits for an actor
    whose machine is lost or never starts.

    Args:
        sizes: a function that takes the numbers of CPUs and GPUs, and returns a mapping from pool
            name to PoolSize. If a pool is not in the mapping, it gets the last size of the mapping.

    Raises:
        UserError: the sizes ask for more CPUs or GPUs than Ray has.
    """

    def __init__(self, sizes: Callable[[int, float], Mapping[str, PoolSize]]) -> None:
        self._pools: dict[str, _RayPool] = {}
        self._ray, self._is_ours = start_ray(", or set executor=serial")
        self._cpus, self._gpus = capacity(self._ray.cluster_resources())
        try:
            self._sizes = sizes(self._cpus, self._gpus)
        except ValueError as error:
            self.close()
            raise UserError(str(error)) from error
        self._progress: Mapping[str, dict[str, float]] = {}  # run -> pool -> progress
        self._asked: dict[Any, tuple[str, str]] = {}  # answer of an actor -> its run and its pool
        self._asked_at = 0.0
        self._first_poll: float | None = None
        self._heard = False  # whether any actor has answered

    def trainers(self) -> Trainers:
        """Describe the actors of the training pool, which is the first pool."""
        first, *_ = self._sizes.values()
        return Trainers(first.actors, first.gpus)

    def runs_here(self) -> bool:
        """Return whether the cluster is this machine alone, and cannot grow."""
        return is_alone(self._ray)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function on a machine on which the first pool's actors will run.

        See Executor.call. If this machine is the whole cluster and the actors use no GPUs, the
        driver calls the function itself. Otherwise Ray calls it in another process: a driver that
        computes on a GPU would keep memory of the GPU.
        """
        first, *_ = self._sizes.values()
        return call_on(self._ray, first.cpus, first.gpus, function, *arguments)

    def share(self, value: Any) -> Any:
        """Put the value into Ray's object store, and return a reference to it."""
        return self._ray.put(value)

    def start(self, pools: Mapping[str, Pool]) -> None:
        """Set the pools: a mapping from name to pool. Actors are made when units need them."""
        *_, last = self._sizes.values()
        self._pools = {
            name: _RayPool(pool, self._sizes.get(name, last)) for name, pool in pools.items()
        }
        self._awaited = {pool.runs_alone_after for pool in pools.values()}

    def submit(self, pool: str, unit: Any, *arguments: Any) -> None:
        """Add a unit to the queue of a pool."""
        self._pools[pool].queue.append(unit.run, _Entry(unit, arguments))

    def forget(self, run: str) -> None:
        """Remove the queued units of a run. Its running units go on."""
        for pool in self._pools.values():
            pool.queue.drop(run)

    def busy(self) -> bool:
        """Return whether any unit is queued or running."""
        return any(pool.busy for pool in self._pools.values())

    def poll(self) -> list[Outcome]:
        """Start queued units and new actors, and return the outcomes of units that have ended.

        If no unit has ended, wait for at most half a second. The list may be empty.
        """
        for name, pool in self._pools.items():
            # A pool is not over as soon as its last unit has ended. The result of this unit may
            # make another unit due, and the driver submits this unit before it polls again. The
            # actor of a learner on a stream has the masks that the next unit needs.
            pool.is_over = not pool.busy
            if pool.is_over and name in self._awaited:
                self._dismiss(pool)
        for name in self._pools:
            self._start_units(name)
        references = [r for pool in self._pools.values() for r in (*pool.running, *pool.starting)]
        if not references:
            return []
        at_most = min(len(references), RESULTS_AT_ONCE)
        ready, _ = self._ray.wait(references, num_returns=at_most, timeout=0)
        if not ready:
            ready, _ = self._ray.wait(references, timeout=0.5)
        self._heard = self._heard or bool(ready)
        self._mention_silence()
        outcomes = []
        for name, pool in self._pools.items():
            for reference in ready:
                if reference in pool.running:
                    outcomes += self._collect(name, pool, reference)
                elif reference in pool.starting:
                    outcomes += self._receive(name, pool, reference)
            # Actors get their next units before the driver stores these results, so that no actor
            # waits for a commit.
            self._start_units(name)
        return outcomes

    def running(self, run: str = "") -> dict[str, float]:
        """Return a mapping from pool name to the progress of a run's units; see Executor.running.

        The progress is taken from the latest answers of the actors. This method asks the busy
        actors again, but does not wait for the new answers.
        """
        self._ask_progress()
        return self._progress.get(run, {})

    def queues(self, run: str = "") -> dict[str, tuple[int, int]]:
        """Return a mapping from pool name to two numbers: waiting and running units of a run."""
        return {
            name: (
                pool.queue.waiting(run),
                sum(entry.unit.run == run for _, entry in pool.running.values()),
            )
            for name, pool in self._pools.items()
        }

    def describe(self) -> str:
        """Describe the actors and the cluster in one log line."""
        train, *evaluate = self._sizes.values()
        gpus = f", {self._gpus:g} GPUs" if self._gpus else ""
        return (
            f"ray: {train.actors} training and {sum(size.actors for size in evaluate)} "
            "evaluation actors "
            f"on {self._cpus} CPUs{gpus}"
        )

    def close(self) -> None:
        """End all actors. If this executor has connected to Ray, also end the connection."""
        for pool in self._pools.values():
            self._dismiss(pool)
            for actor, _ in pool.running.values():
                self._ray.kill(actor)
        self._pools = {}
        if self._is_ours:
            self._ray.shutdown()

    def _ask_progress(self) -> None:
        """Take the answers of busy actors, and ask again; at most every quarter of a second."""
        if time.monotonic() - self._asked_at < SECONDS_BETWEEN_QUESTIONS:
            return
        if self._asked:
            ready, _ = self._ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
            if len(ready) < len(self._asked) and time.monotonic() - self._asked_at < 2:
                return
            shares: dict[str, dict[str, float]] = {}
            for reference in ready:
                run, name = self._asked[reference]
                of_run = shares.setdefault(run, dict.fromkeys(self._pools, 0.0))
                try:
                    of_run[name] += self._ray.get(reference)
                    self._heard = True
                except self._ray.exceptions.RayError:  # the actor died; poll handles that
                    continue
            self._progress = shares
        self._asked = {
            actor.progress.remote(): (entry.unit.run, name)
            for name, pool in self._pools.items()
            for actor, entry in pool.running.values()
        }
        self._asked_at = time.monotonic()

    def _mention_silence(self) -> None:
        """Log once if no actor has answered for SECONDS_OF_SILENCE.

        Ray waits for free resources without any message.
        """
        if self._first_poll is None:
            self._first_poll = time.monotonic()
        if not self._heard and time.monotonic() - self._first_poll > SECONDS_OF_SILENCE:
            self._heard = True
            logging.getLogger(__name__).warning(
                "waiting for Ray to start actors: the cluster may be busy, or still growing"
            )

    def _start_units(self, name: str) -> None:
        pool = self._pools[name]
        other = pool.pool.runs_alone_after
        shared = other in self._pools and not self._pools[other].is_over
        limit = pool.size.actors if shared or other is None else pool.size.actors_alone
        while pool.queue and pool.idle and len(pool.running) < limit:
            actor, entry = pool.idle.pop(), pool.queue.popleft()
            entry.tries += 1
            pool.running[actor.run.remote(entry.unit, *entry.arguments)] = (actor, entry)
        if not pool.queue:
            # No unit is left for actors that are still starting. They are ended, so that no machine
            # is reserved for them.
            self._kill(pool.starting.values())
            pool.starting.clear()
        wanted = min(limit - len(pool.running), len(pool.queue))
        while len(pool.starting) < wanted:
            self._start_actor(name, pool)

    def _start_actor(self, name: str, pool: _RayPool) -> None:
        pool.num_started += 1
        make = self._ray.remote(
            num_cpus=pool.size.cpus,
            num_gpus=pool.size.gpus,
            max_restarts=0,
            max_task_retries=0,
            # The second thread answers `progress` while `run` is busy.
            max_concurrency=2,
        )(pool.pool.factory)
        actor = make.remote(*pool.pool.arguments, name=f"{name}-{pool.num_started}")
        pool.starting[actor.__ray_ready__.remote()] = actor

    def _receive(self, name: str, pool: _RayPool, reference: Any) -> list[Outcome]:
        """Handle an actor whose start has succeeded or failed.

        A failed start counts as a failed try of the first unit in the queue, and this unit moves to
        the end of the queue. So if several starts fail at once because a machine is lost, each
        failed start counts for a different unit.

        Raises:
            UserError: the actor has found a wrong input of the user, so no actor can start.
        """
        actor = pool.starting.pop(reference)
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._ray.kill(actor)
            if found := _USER_ERROR.search(str(error)):
                raise UserError(found[1]) from error
            if not pool.queue:
                return []
            entry = pool.queue.popleft()
            entry.tries += not _was_preempted(error)
            return self._again(name, pool, entry, _named(error), last=True)
        pool.idle.append(actor)
        return []

    def _collect(self, name: str, pool: _RayPool, reference: Any) -> list[Outcome]:
        actor, entry = pool.running.pop(reference)
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause if error.cause is not None else error
            if is_device_error(cause):
                # After an error of a GPU, every later call of the actor would fail too.
                self._kill([actor])
            else:
                pool.idle.append(actor)  # the unit failed, but its actor still works
            return self._again(name, pool, entry, Failure.described(cause, str(error)))
        except self._ray.exceptions.RayError as error:
            # The actor died, lost its node, ran out of memory or is unavailable. An unavailable
            # actor may still be alive, so it is killed. Idle actors may have been lost with the
            # same node. If the unit were sent to them, each lost actor would cost it a try. So idle
            # actors are killed too.
            self._kill([actor, *pool.idle])
            pool.idle.clear()
            entry.tries -= _was_preempted(error)
            return self._again(name, pool, entry, _named(error))
        pool.idle.append(actor)
        return [Outcome(name, entry.unit, result)]

    def _again(
        self, name: str, pool: _RayPool, entry: _Entry, failure: Failure, *, last: bool = False
    ) -> list[Outcome]:
        if entry.tries < MAX_TRIES:
            logging.getLogger(__name__).info("trying %s again: %s", entry.unit.name, failure.line)
            (pool.queue.append if last else pool.queue.appendleft)(entry.unit.run, entry)
            return []
        return [Outcome(name, entry.unit, error=failure.line, traceback=failure.traceback)]

    def _dismiss(self, pool: _RayPool) -> None:
        """End a pool's idle and starting actors, so that other pools can use their resources."""
        self._kill([*pool.idle, *pool.starting.values()])
        pool.idle.clear()
        pool.starting.clear()

    def _kill(self, actors: Iterable[Any]) -> None:
        for actor in actors:
            self._ray.kill(actor)


def _was_preempted(error: Exception) -> bool:
    """Return whether the provider of the cluster took the actor's machine back.

    Such a loss says nothing about the unit, so it does not count as a try of the unit.
    """
    return bool(getattr(error, "preempted", False))


def _named(error: Exception) -> Failure:
    """Describe an error of Ray in one line.

    The first line of Ray's message says why an actor was lost. If the actor could not be made, the
    last line of the message has the error that the actor raised.
    """
    text = str(error)
    lines = text.strip().splitlines() or ["no reason given"]
    gist = f"{lines[0]} {lines[-1]}" if "creation task" in lines[0] else lines[0]
    return Failure(f"{type(error).__name__}: {gist}{origin(text)}", text if origin(text) else "")
