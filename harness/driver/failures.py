"""The table `failures`: what was set aside after three tries, until a later start gets it done."""

import logging
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from harness.executors.protocol import MAX_TRIES, Outcome
from harness.places.durable import remove_partial_files
from harness.places.places import Place, put_aside
from harness.plan.units import TrainUnit
from harness.tables.files import read_tables, write_table
from harness.tables.schemas import FAILURES

logger = logging.getLogger("harness")

FILE = "failures.parquet"


def failed_tasks(unit: Any) -> Sequence[int]:
    """The tasks that lack something because this unit was set aside."""
    tasks: Sequence[int] = unit.missing if isinstance(unit, TrainUnit) else unit.task_ids
    return tasks


class Failures:
    """The failures of a run: one small file, whole at any time.

    Args:
        folder: of the table; made when there is something to say.
    """

    def __init__(self, folder: Place) -> None:
        self._folder = folder
        self._rows: dict[tuple[str, int], dict[str, Any]] = {}
        if folder.exists():
            remove_partial_files(folder)
            self._read()

    def _read(self) -> None:
        try:
            table = read_tables(self._folder, FAILURES)
        except ValueError as error:  # what is still undone will be tried again, and tell
            logger.warning("damaged: %s; begun anew", error)
            put_aside(self._folder / FILE)
            return
        for row in table.to_pylist():
            self._rows[row["unit"], row["task_id"]] = row

    def add(self, outcome: Outcome) -> None:
        """Note a unit that was set aside."""
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
        """Drop what was done after all by a start that was killed before it could say so.

        Args:
            is_done: of a pool, a unit and a task.
        """
        done = [key for key, row in self._rows.items() if is_done(row["pool"], *key)]
        for key in done:
            del self._rows[key]
        if done:
            self._write()

    def forget(self, unit: str, task_ids: Collection[int] | None = None) -> None:
        """Note that a unit was done after all.

        Args:
            unit: its name.
            task_ids: those of its tasks that were; None: all.
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
        write_table(pa.Table.from_pylist(rows, schema=FAILURES), self._folder / FILE)
