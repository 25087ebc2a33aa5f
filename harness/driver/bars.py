"""Progress bars of a stage: one bar per checkpoint.

A bar shows a number of finished items, such as queries, and a mean accuracy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from harness.driver.mean import Mean
from harness.driver.protocol import TableUnit
from harness.reporting.display import Display


@dataclass
class _Bar:
    name: str
    way: str  # the bar shows the mean accuracy of units with this way
    done: int = 0  # number of items whose results are on disk
    accuracies: Mean = field(default_factory=Mean)


class CheckpointBars:
    """The progress bars of one stage, one bar per checkpoint.

    The units of a checkpoint can differ in their way: the algorithm and the objective of an
    evaluation, or the rule and the cue of a recall. A mean over several ways would be the accuracy
    of none of them. So a bar shows the mean accuracy of the first unit's way, and the name of this
    way.

    Args:
        display: the display that shows the bars.
        doing: a word for the stage's work on the masks, such as "evaluating".
        accuracy: name of the table column with the accuracies.
        items: plural name of the counted items, such as "queries".
        num_items: a function from a task number to the number of items that a unit has for this
            task.
    """

    def __init__(
        self,
        display: Display,
        doing: str,
        accuracy: str,
        items: str,
        num_items: Callable[[int], int],
    ) -> None:
        self._display, self._doing, self._accuracy = display, doing, accuracy
        self._items, self._num_items = items, num_items
        self._bars: dict[int, _Bar] = {}

    def begin(self, num_tasks: int, units: Sequence[TableUnit]) -> None:
        """Add the bar of a checkpoint.

        Args:
            num_tasks: k, the number of masks of the checkpoint.
            units: the checkpoint's units whose results are missing, at least one.
        """
        bar = self._bars[num_tasks] = _Bar(f"{self._doing} {num_tasks} masks", units[0].way)
        self._display.add(bar.name, sum(map(self._count, units)), 0, self._items, bar.way)

    def add(self, unit: TableUnit, rows: pa.Table) -> None:
        """Count the items of a finished unit in the bar of the unit's checkpoint.

        Args:
            unit: the unit.
            rows: the rows of the unit's table.
        """
        bar = self._bars[unit.num_tasks]
        bar.done += self._count(unit)
        if unit.way == bar.way:
            bar.accuracies.add(rows[self._accuracy].to_pylist())
        self._display.update(bar.name, bar.done, bar.accuracies.value)

    def _count(self, unit: TableUnit) -> int:
        return sum(map(self._num_items, unit.task_ids))
