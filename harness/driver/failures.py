"""The table `failures`: the units that failed three times and have no result yet.

A unit that failed three times is set aside: this start does not try it again. A later start tries
it again, and deletes its rows from the table if it succeeds.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from harness.executors.protocol import MAX_TRIES, Outcome
from harness.places.durable import remove_partial_files
from harness.places.places import Place, put_aside
from harness.plan.pools import TRAIN
from harness.plan.units import TrainUnit
from harness.tables.files import read_table_file, table_files, write_table
from harness.tables.schemas import FAILURES

logger = logging.getLogger("harness")

FILE = "failures.parquet"


def failed_tasks(unit: Any) -> Sequence[int]:
    """List the tasks that have no result if this unit fails.

    For a training unit, these are the tasks without a committed mask. For other units, these are
    all tasks of the unit.
    """
    tasks: Sequence[int] = unit.missing if isinstance(unit, TrainUnit) else unit.task_ids
    return tasks


class Failures:
    """The table `failures` of a run, in one small file. It has one row per failed unit and task.

    Each change writes a new file and then replaces the old file. So the file is complete at any
    time.

    Args:
        folder: the table's folder. It is created when the first row is written.
        run_id: the run's identity, which is stored in the file.
    """

    def __init__(self, folder: Place, run_id: str) -> None:
        self._folder, self._run_id = folder, run_id
        self._rows: dict[tuple[str, int], dict[str, Any]] = {}
        if folder.exists():
            remove_partial_files(folder)
            self._read()

    def _read(self) -> None:
        for path in table_files(self._folder):
            try:
                table = read_table_file(path, FAILURES, run_id=self._run_id)
            except ValueError as error:
                # No result is lost: every unfinished unit will be tried again, and will be added to
                # the table if it fails again.
                logger.warning("damaged: %s; continuing without the file", error)
                put_aside(path)
                continue
            for row in table.to_pylist():
                self._rows[row["unit"], row["task_id"]] = row

    def add(self, outcome: Outcome) -> None:
        """Add one row for each task that has no result because the unit failed three times."""
        for task_id in failed_tasks(outcome.unit):
            self._rows[outcome.unit.name, task_id] = {
                "task_id": task_id,
                "unit": outcome.unit.name,
                "pool": outcome.pool,
                "tries": MAX_TRIES,
                "error": " ".join(str(outcome.error).split()),
                "failed_at": datetime.now(UTC),
            }
        self._write()

    def forget_done(self, is_done: Callable[[str, str, int], bool]) -> None:
        """Delete the rows of tasks whose results exist.

        Such a row stays in the table if an earlier start was killed after it wrote the result and
        before it deleted the row.

        Args:
            is_done: a function that returns whether a result exists. Its arguments are the name of
                the pool, the name of the unit and the number of the task.
        """
        done = [key for key, row in self._rows.items() if is_done(row["pool"], *key)]
        for key in done:
            del self._rows[key]
        if done:
            self._write()

    def keep_units(self, names: Collection[str]) -> None:
        """Delete rows of the table `failures`: those of evaluation units that nobody needs.

        For example, an earlier command asked for more distractors than fit into memory, so its
        units failed. If no later command asks for these units, nothing else would delete their
        rows. The same is true of recall units. Rows of training units stay in the table, because
        a run needs every mask.

        Args:
            names: names of the units whose rows stay: the units of the run itself, and the units of
                this start.
        """
        done = [
            key for key, row in self._rows.items() if row["pool"] != TRAIN and key[0] not in names
        ]
        for key in done:
            del self._rows[key]
        if done:
            self._write()

    def forget(self, unit: str, task_ids: Collection[int] | None = None) -> None:
        """Delete the rows of a unit that succeeded after earlier failures.

        Args:
            unit: the unit's name.
            task_ids: the tasks whose rows are deleted. None: all tasks of the unit.
        """
        done = [
            key for key in self._rows if key[0] == unit and (task_ids is None or key[1] in task_ids)
        ]
        for key in done:
            del self._rows[key]
        if done:
            self._write()

    def _write(self) -> None:
        self._folder.mkdir(exist_ok=True)
        rows = sorted(
            self._rows.values(), key=lambda row: (row["pool"], row["unit"], row["task_id"])
        )
        write_table(pa.Table.from_pylist(rows, schema=FAILURES), self._folder / FILE, self._run_id)
