"""Copy the results of a run to its loggers."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from harness.plan.units import EvaluationUnit, RecallUnit, WorkUnit
from harness.reporting.loggers.begun import Begun
from harness.reporting.loggers.protocol import Logger
from harness.reporting.metrics import NoMetrics

# Table -> the columns whose means are copied.
COLUMNS: Mapping[str, Sequence[str]] = {
    "evaluations": (
        *("task_accuracy", "accuracy_gg", "accuracy_gns", "accuracy_gnu"),
        "seconds_per_inference",
    ),
    "reservoir": ("bit_accuracy", "exact_recall", "accuracy"),
}


@dataclass
class _Part:
    """The units of a checkpoint whose rows have one mean: those with the same table and way."""

    left: int = 0  # number of units without rows
    values: dict[str, list[float]] = field(default_factory=dict)  # column -> values, no nulls


class LoggedMetrics(NoMetrics):
    """Copies mean accuracies of a run to loggers.

    The mean accuracy of the committed tasks is copied after each commit. The means of a part of a
    checkpoint, such as those of one_shot with H, are copied when all rows of the part are on disk.
    If a logger raises an error, a warning is logged, and the run goes on without the logger.

    Args:
        loggers: name -> logger that has begun.
        units: the evaluation and recall units of this start.
        settings: table -> words that tell the settings of this start from the usual settings, such
            as num_images_2. They become a part of the names, because the means of different
            settings must not form one line. A table with the usual settings is left out.
    """

    def __init__(
        self,
        loggers: Mapping[str, Logger],
        units: Iterable[WorkUnit],
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._begun = Begun(loggers)
        self._settings = settings or {}
        self._parts: dict[tuple[str, int, str], _Part] = {}
        for unit in units:
            self._parts.setdefault(_part(unit), _Part()).left += 1

    def committed(self, num_tasks: int, num_masks: int, accuracy: float | None) -> None:
        """See NoMetrics."""
        if accuracy is not None:
            self._begun.log({"tasks/accuracy": accuracy}, num_masks)

    def evaluated(self, unit: EvaluationUnit, rows: pa.Table) -> None:
        """See NoMetrics."""
        self.add(unit, rows)

    def recalled(self, unit: RecallUnit, rows: pa.Table) -> None:
        """See NoMetrics."""
        self.add(unit, rows)

    def add(self, unit: WorkUnit, rows: pa.Table) -> None:
        """Add the rows of a unit, and copy the means of the unit's part if it is complete now."""
        part = self._parts[_part(unit)]
        part.left -= 1
        for column in COLUMNS[unit.table]:
            found = [value for value in rows[column].to_pylist() if value is not None]
            part.values.setdefault(column, []).extend(found)
        if not part.left:
            words = [unit.table, re.sub(r"\W+", "_", unit.way), self._settings.get(unit.table)]
            name = "/".join(word for word in words if word)
            means = {
                f"{name}/{column}": sum(found) / len(found)
                for column, found in part.values.items()
                if found
            }
            self._begun.log(means, unit.num_tasks)

    def end(self) -> None:
        """See NoMetrics."""
        self._begun.end()


def _part(unit: WorkUnit) -> tuple[str, int, str]:
    """Return the table, num_tasks and way of a unit, which name its part."""
    return unit.table, unit.num_tasks, unit.way
