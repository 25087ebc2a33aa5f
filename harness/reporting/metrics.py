"""The events of a run that other programs can follow, such as Prometheus or TensorBoard.

Only the driver reports events, after the results are on disk. The code of the workers does not
report anything.
"""

from collections.abc import Sequence

import pyarrow as pa

from harness.plan.units import EvaluationUnit, RecallUnit


class NoMetrics:
    """A listener to the events of a run. Every method does nothing."""

    def committed(self, num_tasks: int, num_masks: int, accuracy: float | None) -> None:
        """Report that tasks were committed.

        Args:
            num_tasks: number of tasks in this commit.
            num_masks: number of all committed masks.
            accuracy: mean accuracy of all committed tasks, in [0, 1]; None if unknown.
        """

    def evaluated(self, unit: EvaluationUnit, rows: pa.Table) -> None:
        """Report that the table rows of an evaluation unit are on disk."""

    def recalled(self, unit: RecallUnit, rows: pa.Table) -> None:
        """Report that the table rows of a recall unit are on disk."""

    def set_aside(self, pool: str) -> None:
        """Report that a work unit of a pool was set aside, because it failed three times."""

    def watch(self) -> None:
        """Report how many work units wait and run now. The driver calls this method regularly."""

    def end(self) -> None:
        """Report that the work on the run has ended in this process."""


class JoinedMetrics(NoMetrics):
    """Several listeners. Each of them gets every event.

    Args:
        listeners: the listeners.
    """

    def __init__(self, listeners: Sequence[NoMetrics]) -> None:
        self._listeners = listeners

    def committed(self, num_tasks: int, num_masks: int, accuracy: float | None) -> None:
        """See NoMetrics."""
        for one in self._listeners:
            one.committed(num_tasks, num_masks, accuracy)

    def evaluated(self, unit: EvaluationUnit, rows: pa.Table) -> None:
        """See NoMetrics."""
        for one in self._listeners:
            one.evaluated(unit, rows)

    def recalled(self, unit: RecallUnit, rows: pa.Table) -> None:
        """See NoMetrics."""
        for one in self._listeners:
            one.recalled(unit, rows)

    def set_aside(self, pool: str) -> None:
        """See NoMetrics."""
        for one in self._listeners:
            one.set_aside(pool)

    def watch(self) -> None:
        """See NoMetrics."""
        for one in self._listeners:
            one.watch()

    def end(self) -> None:
        """See NoMetrics."""
        for one in self._listeners:
            one.end()
