"""Metrics of a run for Prometheus. The driver reports them to Ray, and Ray exports them.

Only the driver reports metrics, because the code of the workers does not use Ray. Only this module
uses Ray's metric classes. If `ray[default]` is installed, an agent of Ray on each node offers the
metrics to Prometheus. Otherwise, the metrics are dropped, at almost no cost. Ray adds the prefix
`ray_` to every name and the suffix `_total` to the names of counters. For example, Prometheus
computes the tasks per second by rate(ray_supermask_tasks_committed_total[5m]).
"""

import pyarrow as pa

from harness.executors.on_ray import RayExecutor
from harness.places.places import Place
from harness.plan.units import EvaluationUnit
from harness.reporting.metrics import NoMetrics

# Upper limits of the histogram's buckets, in seconds. The smallest limits are for one-shot on a
# small network, the largest for gradient descent over thousands of large masks.
LATENCIES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0]


class RayMetrics(NoMetrics):
    """Metrics of a run on Ray, reported by the driver.

    Args:
        run_dir: the run directory. Every metric has this path as its tag `run`.
        executor: the executor. The run's waiting and running work units are reported.
        label: the label of the run in the executor.
    """

    def __init__(self, run_dir: Place, executor: RayExecutor, label: str) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        self._executor, self._label = executor, label
        self._run = {"run": str(run_dir)}
        self._committed = Counter(
            "supermask_tasks_committed", "Tasks committed since the driver started.", ("run",)
        )
        self._accuracy = Gauge(
            "supermask_accuracy", "Mean accuracy of the committed tasks, task given.", ("run",)
        )
        self._set_aside = Counter(
            "supermask_units_set_aside", "Work units that failed three times.", ("run", "pool")
        )
        self._waiting = Gauge(
            "supermask_units_waiting", "Work units in a pool's queue.", ("run", "pool")
        )
        self._running = Gauge(
            "supermask_units_running", "Work units on a pool's actors.", ("run", "pool")
        )
        self._seconds = Histogram(
            "supermask_inference_seconds",
            "Time per task inference; each observation is the mean in one row of evaluations.",
            LATENCIES,
            ("run", "algorithm", "objective"),
        )

    def committed(self, num_tasks: int, num_masks: int, accuracy: float | None) -> None:
        """See NoMetrics."""
        self._committed.inc(num_tasks, self._run)
        if accuracy is not None:
            self._accuracy.set(accuracy, self._run)

    def evaluated(self, unit: EvaluationUnit, rows: pa.Table) -> None:
        """See NoMetrics."""
        # Prometheus treats an empty label like a missing label.
        tags = {"algorithm": unit.algorithm, "objective": unit.objective or "", **self._run}
        for seconds in rows["seconds_per_inference"].to_pylist():
            self._seconds.observe(seconds, tags)

    def set_aside(self, pool: str) -> None:
        """See NoMetrics."""
        self._set_aside.inc(1, {"pool": pool, **self._run})

    def watch(self) -> None:
        """See NoMetrics."""
        for pool, (waiting, running) in self._executor.queues(self._label).items():
            self._waiting.set(waiting, {"pool": pool, **self._run})
            self._running.set(running, {"pool": pool, **self._run})
