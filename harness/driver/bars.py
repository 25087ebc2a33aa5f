"""Progress bars of a stage: one bar per checkpoint, with the mean accuracy of one way so far."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from harness.driver.mean import Mean
from harness.driver.protocol import TableUnit
from harness.reporting.display import Display


@dataclass
class _Bar:
    name: str
    way: str  # the way whose accuracy the bar shows
    done: int = 0  # number of kept rows
    accuracies: Mean = field(default_factory=Mean)


class CheckpointBars:
    """The progress bars of one stage, one bar per checkpoint.

    A mean over several ways would be the accuracy of none of them. So a bar shows the accuracy of
    the first way that is left to do, and names this way.

    Args:
        display: the display that shows the bars.
        doing: the stage's work on the masks in one word, such as "evaluating".
        accuracy: the table column whose mean the bars show.
    """

    def __init__(self, display: Display, doing: str, accuracy: str) -> None:
        self._display, self._doing, self._accuracy = display, doing, accuracy
        self._bars: dict[int, _Bar] = {}

    def begin(self, num_tasks: int, units: Sequence[TableUnit]) -> None:
        """Add the bar of a checkpoint.

        Args:
            num_tasks: k, the checkpoint.
            units: the checkpoint's units that are left to do, at least one.
        """
        bar = self._bars[num_tasks] = _Bar(f"{self._doing} {num_tasks} masks", units[0].way)
        self._display.add(bar.name, sum(unit.num_rows for unit in units), 0, "rows", bar.way)

    def add(self, unit: TableUnit, rows: pa.Table) -> None:
        """Count the kept rows of a unit in the bar of its checkpoint."""
        bar = self._bars[unit.num_tasks]
        bar.done += len(rows)
        if unit.way == bar.way:
            bar.accuracies.add(rows[self._accuracy].to_pylist())
        self._display.update(bar.name, bar.done, bar.accuracies.value)
