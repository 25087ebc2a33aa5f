"""What Prometheus can see of a run: numbers that the driver tells Ray, which exports them.

Ray's own agent serves them from each node, and only where `ray[default]` is installed; without
it they cost next to nothing and go nowhere. Ray puts `ray_` before every name, and `_total`
behind a counter's. Tasks a second are for Prometheus to say:
rate(ray_supermask_tasks_committed_total[5m]).
"""

import pyarrow as pa

from harness.executors.on_ray import RayExecutor
from harness.executors.protocol import Executor
from harness.places.places import Place
from harness.plan.units import EvaluationUnit

# Seconds. From a small network's one-shot to descent over thousands of large masks.
LATENCIES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0]


class NoMetrics:
    """Where no Ray runs: told everything, keeps nothing."""

    def committed(self, num_tasks: int, accuracy: float | None) -> None:
        """Tasks were committed.

        Args:
            num_tasks: how many, now.
            accuracy: mean of all that are.
        """

    def evaluated(self, unit: EvaluationUnit, rows: pa.Table) -> None:
        """The rows of a unit are on disk."""

    def set_aside(self, pool: str) -> None:
        """A unit failed too often."""

    def watch(self) -> None:
        """A moment has passed: queues may have other lengths."""


class RayMetrics(NoMetrics):
    """One run's metrics, from the driver's process.

    Args:
        run_dir: what the tag `run` says.
        executor: whose queues are watched.
    """

    def __init__(self, run_dir: Place, executor: RayExecutor) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        self._executor = executor
        self._run = {"run": str(run_dir)}
        self._committed = Counter(
            "supermask_tasks_committed", "Tasks committed by this start.", ("run",)
        )
        self._accuracy = Gauge(
            "supermask_accuracy", "Mean accuracy of the committed tasks, task given.", ("run",)
        )
        self._set_aside = Counter(
            "supermask_units_set_aside", "Work units that failed too often.", ("run", "pool")
        )
        self._waiting = Gauge(
            "supermask_units_waiting", "Work units in a pool's queue.", ("run", "pool")
        )
        self._running = Gauge(
            "supermask_units_running", "Work units on a pool's actors.", ("run", "pool")
        )
        self._seconds = Histogram(
            "supermask_inference_seconds",
            "Time to infer a task once; each observation is the mean of a row of evaluations.",
            LATENCIES,
            ("run", "algorithm", "objective"),
        )

    def committed(self, num_tasks: int, accuracy: float | None) -> None:
        """See NoMetrics."""
        self._committed.inc(num_tasks, self._run)
        if accuracy is not None:
            self._accuracy.set(accuracy, self._run)

    def evaluated(self, unit: EvaluationUnit, rows: pa.Table) -> None:
        """See NoMetrics."""
        # Prometheus takes an empty label for a missing one.
        tags = {"algorithm": unit.algorithm, "objective": unit.objective or "", **self._run}
        for seconds in rows["seconds_per_inference"].to_pylist():
            self._seconds.observe(seconds, tags)

    def set_aside(self, pool: str) -> None:
        """See NoMetrics."""
        self._set_aside.inc(1, {"pool": pool, **self._run})

    def watch(self) -> None:
        """See NoMetrics."""
        for pool, (waiting, running) in self._executor.queues().items():
            self._waiting.set(waiting, {"pool": pool, **self._run})
            self._running.set(running, {"pool": pool, **self._run})


def make_metrics(run_dir: Place, executor: Executor) -> NoMetrics:
    """The metrics of a run: Ray's where its work is on Ray."""
    return RayMetrics(run_dir, executor) if isinstance(executor, RayExecutor) else NoMetrics()
