"""The table `failures`: the units that failed three times and that no later start has done yet."""

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
    """List the tasks that lack a result because this unit was set aside."""
    tasks: Sequence[int] = unit.missing if isinstance(unit, TrainUnit) else unit.task_ids
    return tasks


class Failures:
    """The table `failures` of a run, in one small file.

    Each change replaces the whole file, so the file is complete at any time.

    Args:
        folder: the table's folder; made with the first row.
        run_id: the identity of the run, which the file carries.
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
                # This loses nothing: every unfinished unit will be tried again, and will be added
                # to the table if it fails again.
                logger.warning("damaged: %s; going on without the file", error)
                put_aside(path)
                continue
            for row in table.to_pylist():
                self._rows[row["unit"], row["task_id"]] = row

    def add(self, outcome: Outcome) -> None:
        """Add a row for each task of a unit that was set aside."""
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

        Such a row remains if a start was killed after it kept the result and before it deleted
        the row.

        Args:
            is_done: a function (pool name, unit name, task number) -> whether the result exists.
        """
        done = [key for key, row in self._rows.items() if is_done(row["pool"], *key)]
        for key in done:
            del self._rows[key]
        if done:
            self._write()

    def keep_units(self, names: Collection[str]) -> None:
        """Delete the rows of evaluations that nobody asks for any more.

        Such a unit belonged to an earlier command, for example one that asked for more distractors
        than fit into memory. Without this, its rows would stay for ever.

        Args:
            names: names of the units of the run itself and of this start. Rows of training units
                are kept in any case, because every task of a run is asked for.
        """
        done = [
            key for key, row in self._rows.items() if row["pool"] != TRAIN and key[0] not in names
        ]
        for key in done:
            del self._rows[key]
        if done:
            self._write()

    def forget(self, unit: str, task_ids: Collection[int] | None = None) -> None:
        """Delete the rows of a unit that was tried again and succeeded.

        Args:
            unit: the unit's name.
            task_ids: the tasks of the unit that succeeded; None: all its tasks.
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
