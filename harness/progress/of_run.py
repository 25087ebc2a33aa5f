"""Measure the progress of a run from its files, while another process may write them.

The other process writes each table file as a whole, and does not change it later. So this module
never reads half of a file. It imports neither Ray nor torch, so that harness/status.py starts fast.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import fmean

import pyarrow as pa

from harness.config.schema import Config
from harness.config.stored import from_values_of_any_version, stored_values, value_errors
from harness.errors import UserError
from harness.places.places import Place
from harness.places.reading import read_json
from harness.plan.evaluation import evaluation_units
from harness.plan.ownership import Mistakes
from harness.plan.reservoirs import recall_units, recovery_units
from harness.plan.resolve import most_masks
from harness.plan.units import EvaluationUnit, WorkUnit
from harness.run.seen import seen_tasks
from harness.storage.lock import Holder, driver_state, lock_holder
from harness.tables.files import read_table_file, table_files
from harness.tables.schemas import ALLOCATION, FAILURES, SCHEMAS, TASKS

RATE_OVER = timedelta(minutes=5)

# It takes seconds to list the work units for this many table rows. A run with 10^6 tasks that
# evaluates every task has fewer rows.
_MOST_ROWS = 2 * 10**7


@dataclass(frozen=True)
class Part:
    """The progress of one part of a checkpoint.

    A part is the evaluation of one algorithm with one objective, or the recall with one rule.

    Attributes:
        table: "evaluations", "reservoir" or "recovery".
        num_tasks: k, the checkpoint.
        num_distractors: number of untrained masks in addition to the k masks.
        name: algorithm and objective, or the reservoir's rule.
        wanted: number of table rows of the complete part.
        rows: number of table rows that exist.
        queries: number of queries whose task was inferred.
    """

    table: str
    num_tasks: int
    num_distractors: int
    name: str
    wanted: int
    rows: int
    queries: int


@dataclass(frozen=True)
class Progress:
    """The progress of a run at one moment.

    Attributes:
        directory: absolute path of the run directory.
        config: the configuration in config.yaml. Names in it may be unknown to this version.
        committed: number of committed tasks. If a learner follows a stream, this is the number of
            tasks that the stream has shown.
        mistakes: the mistakes of a learner on a stream; None if the task is given in training.
        accuracy: mean accuracy of the committed tasks, in [0, 1]; None if no task is committed.
        tasks_per_second: tasks trained per second in the last 5 minutes. If no driver is training,
            these are the 5 minutes before the end of the last trained task. None if no task is
            committed.
        parts: the parts of the checkpoints in config.yaml.
        other_files: number of files of these tables that do not belong to these parts, such as
            files that harness/evaluate.py added later.
        failed: the last error of each work unit that was set aside. The keys are the units' names.
        broken: paths of table files that cannot be read or belong to another run. If the mask store
            is missing, its path is also in this list.
        num_bytes: size of all files in the run directory.
        holder: the process that the lock file names; None if the lock file names no process.
    """

    directory: Path
    config: Config
    committed: int
    mistakes: Mistakes | None
    accuracy: float | None
    tasks_per_second: float | None
    parts: list[Part]
    other_files: int
    failed: Mapping[str, str]
    broken: list[Place]
    num_bytes: int
    holder: Holder | None

    @property
    def is_whole(self) -> bool:
        """Whether all tasks are trained, the mask store exists, and all parts are evaluated."""
        return (
            self.committed == self.config.tasks
            and _store(self.directory) not in self.broken
            and all(part.rows == part.wanted for part in self.parts)
        )

    @property
    def state(self) -> str:
        """The state of the run; see harness.storage.lock.driver_state."""
        return driver_state(self.holder, self.is_whole)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all tasks are trained, at the current rate; None if this is unknown."""
        left = self.config.tasks - self.committed
        if self.state not in ("live", "unknown") or not self.tasks_per_second or not left:
            return None
        return left / self.tasks_per_second


def look(directory: Path, now: datetime | None = None) -> Progress:
    """Measure the progress of a run, without changing its files.

    Args:
        directory: the run directory.
        now: end of the 5 minutes for which the tasks per second are measured; None: the present
            time.

    Raises:
        UserError: the folder does not exist, or is not the folder of a run.
    """
    config, units = _configuration(directory)
    # Read the lock before the log. If a driver ends between the two reads, its last commits are
    # counted.
    holder = lock_holder(directory)
    run_id = _run_id(directory)
    accuracies, finished_at, broken = _tasks(directory, most_masks(config), run_id)
    parts_of_stream = _read_files(directory / "allocation", ALLOCATION, run_id, broken)
    named = ((path.name.removesuffix(".parquet"), rows) for path, rows in parts_of_stream)
    mistakes = seen_tasks(config, accuracies, named).mistakes
    committed = len(accuracies) if mistakes is None else mistakes.num_tasks
    if accuracies and not _store(directory).is_file():
        broken.append(_store(directory))
    parts, other, broken_tables = _parts(directory, units, run_id)
    trains = holder is not None and holder.alive is not False and committed < config.tasks
    until = (now or datetime.now(UTC)) if trains else None
    return Progress(
        directory=directory,
        config=config,
        committed=committed,
        mistakes=mistakes,
        accuracy=fmean(accuracies.values()) if accuracies else None,
        tasks_per_second=_rate(finished_at, _last_start(directory), until),
        parts=parts,
        other_files=other,
        failed=_failed(directory, run_id),
        broken=broken + broken_tables,
        num_bytes=_num_bytes(directory),
        holder=holder,
    )


def _configuration(directory: Path) -> tuple[Config, list[WorkUnit]]:
    """Read a run's configuration, and list the work units of its first to its last checkpoint."""
    if not directory.is_dir():
        raise UserError(
            f"run_dir must be the folder of a run, got {directory}, which is no folder: "
            "check the path, or start a run with harness/scale.py"
        )
    path = directory / "config.yaml"
    if not os.path.lexists(path):
        raise UserError(
            f"run directory {directory} must hold a run, got no config.yaml in it: "
            "start a run with harness/scale.py, or choose another run_dir"
        )
    values = stored_values(path)
    with value_errors(path):
        config = from_values_of_any_version(values)
        _check_plan(config)
        units: list[WorkUnit] = []
        for k in config.evaluate.checkpoints:
            units += evaluation_units(config, k)
            if config.evaluate.reservoir:
                units += recall_units(config, k)
                units += recovery_units(config, k)
    return config, units


def _check_plan(config: Config) -> None:
    """Refuse a configuration if listing its work units would take minutes.

    Raises:
        ValueError: the checkpoints need too many table rows.
    """
    evaluate = config.evaluate
    ways = len(evaluate.algorithms) * (1 + len(evaluate.objectives)) + len(config.reservoir.rules)
    asked = sum(min(k, evaluate.tasks or k) for k in evaluate.checkpoints)
    if asked * ways > _MOST_ROWS:
        raise ValueError(f"evaluate.checkpoints must need at most {_MOST_ROWS} rows, got more")


def _store(directory: Path) -> Path:
    """Return the path of the file zarr.json. A run without this file has no mask store."""
    return directory / "masks.zarr" / "zarr.json"


def _run_id(directory: Path) -> str | None:
    """Read the identity of the run from its mask store; None if it cannot be read."""
    try:
        found = read_json(_store(directory))["attributes"]["run_id"]
    except (OSError, UserError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def _read_files(
    folder: Path, schema: pa.Schema, run_id: str | None, broken: list[Place]
) -> Iterator[tuple[Place, pa.Table]]:
    """Read the files of a table, and collect the paths of files that cannot be read.

    Args:
        folder: folder of the table, which may be missing.
        schema: the table's schema.
        run_id: the identity of the run; None if it is unknown.
        broken: a list. This function adds the paths of files that cannot be read, and of files that
            belong to another run.

    Yields:
        The path of each readable file, and its rows.

    Raises:
        UserError: another version of the program wrote a file.
    """
    for path in table_files(folder):
        try:
            table = read_table_file(path, schema, run_id=run_id)
        except FileNotFoundError:  # a driver that repairs its tables has just removed the file
            continue
        except (ValueError, UserError) as error:
            is_file = isinstance(path, Path) and path.is_file() and not path.is_symlink()
            if isinstance(error, UserError) and is_file:
                raise
            broken.append(path)
            continue
        yield path, table


def _tasks(
    directory: Path, num_tasks: int, run_id: str | None
) -> tuple[dict[int, float], list[float], list[Place]]:
    """Read the accuracy and the end time of each committed task from the log.

    This function converts the columns to lists of numbers. Other operations of Arrow, such as sums
    and conversions to times or NumPy arrays, would import pandas, which takes 0.4 s.

    Args:
        directory: the run directory.
        num_tasks: largest number of tasks. A file with a larger task number is broken.
        run_id: the identity of the run; None if it is unknown.

    Returns:
        A mapping from the number of each committed task to its accuracy, and two lists: the times
        when their training ended, in seconds since 1970; and the paths of log files that cannot be
        read or belong to another run.
    """
    # The keys are task numbers, because a damaged log may name a task twice.
    accuracies: dict[int, float] = {}
    finished_at: dict[int, float] = {}
    broken: list[Place] = []
    for path, table in _read_files(directory / "log", TASKS, run_id, broken):
        task_ids = table["task_id"].to_pylist()
        if not all(0 <= task_id < num_tasks for task_id in task_ids):
            broken.append(path)
            continue
        accuracies.update(zip(task_ids, table["accuracy"].to_pylist(), strict=True))
        times = table["finished_at"].combine_chunks().view(pa.int64()).to_pylist()
        finished_at.update(zip(task_ids, (one / 1e6 for one in times), strict=True))
    return accuracies, list(finished_at.values()), broken


def _parts(
    directory: Path, units: list[WorkUnit], run_id: str | None
) -> tuple[list[Part], int, list[Place]]:
    """Count the table rows that exist for some work units.

    Args:
        directory: the run directory.
        units: the work units of all checkpoints.
        run_id: the identity of the run; None if it is unknown.

    Returns:
        Three values: the parts of all checkpoints; the number of table files that belong to none of
        the units; and the paths of table files that cannot be read or belong to another run.
    """
    rows: dict[tuple[str, str], int] = {}
    broken: list[Place] = []
    for name in ("evaluations", "queries", "reservoir", "recovery"):
        for path, table in _read_files(directory / name, SCHEMAS[name], run_id, broken):
            rows[name, path.name.removesuffix(".parquet")] = len(table)
    lines: dict[tuple[str, int, int, str], list[WorkUnit]] = {}
    for unit in units:
        lines.setdefault(_line(unit), []).append(unit)
    parts = [
        Part(
            *line,
            wanted=sum(unit.num_rows for unit in own),
            rows=sum(_num_kept(unit, rows) for unit in own),
            queries=sum(
                rows.get(("queries", unit.name), 0) for unit in own if _num_kept(unit, rows)
            ),
        )
        for line, own in lines.items()
    ]
    known = {(table, one.name) for one in units for table in (one.table, *one.details)}
    # A unit has the same name in all its tables.
    return parts, len({name for _, name in rows.keys() - known}), broken


def _num_kept(unit: WorkUnit, rows: Mapping[tuple[str, str], int]) -> int:
    """Count the rows of a unit that exist; 0 if a file with details is missing.

    Args:
        unit: the unit.
        rows: the number of rows of each file. The keys are the name of the table and of the file.
    """
    if any((table, unit.name) not in rows for table in unit.details):
        return 0
    return min(unit.num_rows, rows.get((unit.table, unit.name), 0))


def _line(unit: WorkUnit) -> tuple[str, int, int, str]:
    """Return the table, num_tasks, num_distractors and name of the Part that a unit belongs to."""
    if isinstance(unit, EvaluationUnit):
        return unit.table, unit.num_tasks, unit.num_distractors, unit.inferred_by
    return unit.table, unit.num_tasks, 0, unit.rule


def _failed(directory: Path, run_id: str | None) -> dict[str, str]:
    """Read the last error of each work unit that was set aside. The keys are the units' names."""
    found: dict[str, str] = {}
    for path in table_files(directory / "failures"):
        try:
            rows = read_table_file(path, FAILURES, run_id=run_id).to_pylist()
        except (FileNotFoundError, ValueError, UserError):
            # A driver is replacing the file, or the file is broken and a driver will replace it.
            continue
        found |= {row["unit"]: row["error"] for row in rows}
    return found


def _last_start(directory: Path) -> datetime | None:
    """Read the time when the last driver of the run started; None if this time is unknown."""
    try:
        record = read_json(directory / "provenance.json")
        return datetime.fromisoformat(record["starts"][-1]["at"])
    except (OSError, UserError, ValueError, KeyError, IndexError, TypeError):
        return None


def _rate(
    finished_at: Sequence[float], start: datetime | None, until: datetime | None
) -> float | None:
    """Compute the tasks per second in a period: how many tasks ended in it, divided by its length.

    The period has the length RATE_OVER and ends at `until`. If it would begin before `start`, it
    begins at `start` and is shorter.

    Args:
        finished_at: time when each task ended, in seconds since 1970.
        start: time when the driver started; None if this is unknown.
        until: end of the period; None: the time when the last task ended.

    Returns:
        The tasks per second; None if no task has ended.
    """
    if not finished_at:
        return None
    last = datetime.fromtimestamp(max(finished_at), UTC)
    until = max(until, last) if until else last
    since = until - RATE_OVER
    if start is not None and start < until:
        since = max(since, start)
    num_recent = sum(one > since.timestamp() for one in finished_at)
    return num_recent / (until - since).total_seconds()


def _num_bytes(directory: Path) -> int:
    """Sum the sizes of all files. Skip a file that another process removes during the sum."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += Path(folder, name).lstat().st_size
            except FileNotFoundError:
                continue
    return total
