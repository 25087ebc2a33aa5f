"""How far a run is, from its files alone, while another process may be writing them.

Files of tables appear whole and stay, so what is read is true of the moment it was read. No
Ray, no torch: a look must cost nothing.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from harness.config.identity import read_loosely
from harness.config.schema import Config
from harness.errors import UserError
from harness.places.places import Place
from harness.plan.units import EvaluationUnit, WorkUnit, evaluation_units, recall_units
from harness.storage.lock import Holder, lock_holder
from harness.tables.files import read_table_file, table_files
from harness.tables.schemas import SCHEMAS, TASKS

RATE_OVER = timedelta(minutes=5)


@dataclass(frozen=True)
class Part:
    """How much is there of one line of a checkpoint.

    Attributes:
        table: evaluations or reservoir.
        num_tasks: the checkpoint.
        num_distractors: untrained masks among those of the checkpoint.
        name: algorithm and objective, or the reservoir's rule.
        wanted: number of rows once the line is whole.
        rows: number of rows that are there.
    """

    table: str
    num_tasks: int
    num_distractors: int
    name: str
    wanted: int
    rows: int


@dataclass(frozen=True)
class Progress:
    """A run at one moment.

    Attributes:
        directory: absolute.
        config: what config.yaml says, unchecked.
        committed: tasks.
        accuracy: mean of the committed; None without any.
        tasks_per_second: over the last minutes; where nobody trains, over those before the last
            task. None before there is anything to measure.
        parts: what the run's own checkpoints ask for.
        other_files: of its tables, that a later job was asked for.
        failed: name of a unit set aside -> its error.
        broken: files that cannot be read as what they are.
        num_bytes: of all files.
        holder: of the lock.
    """

    directory: Path
    config: Config
    committed: int
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
        """Whether nothing is left to train or evaluate."""
        return self.committed == self.config.tasks and all(
            part.rows == part.wanted for part in self.parts
        )

    @property
    def state(self) -> str:
        """live, complete, stopped, dead (killed, for its lock is signed) or unknown.

        unknown: another host signed the lock, and only that host can tell.
        """
        if self.holder is not None and self.holder.alive:
            return "live"
        if self.is_whole:
            return "complete"
        if self.holder is None:
            return "stopped"
        return "dead" if self.holder.alive is False else "unknown"

    @property
    def seconds_left(self) -> float | None:
        """Of training, at this rate; None where nobody trains or there is no rate."""
        left = self.config.tasks - self.committed
        if self.state not in ("live", "unknown") or not self.tasks_per_second or not left:
            return None
        return left / self.tasks_per_second


def look(directory: Path, now: datetime | None = None) -> Progress:
    """See how far a run is.

    Args:
        directory: of the run.
        now: what the rate of a run that trains is measured up to; None: this moment.

    Raises:
        UserError: no such folder, or no run in it.
    """
    config, units = _configuration(directory)
    # Before the log: a driver that ends meanwhile has committed what is counted after.
    holder = lock_holder(directory)
    tasks, broken = _tasks(directory)
    parts, other, broken_tables = _parts(directory, units)
    trains = holder is not None and holder.alive is not False and len(tasks) < config.tasks
    until = (now or datetime.now(UTC)) if trains else None
    return Progress(
        directory=directory,
        config=config,
        committed=len(tasks),
        accuracy=pc.mean(tasks["accuracy"]).as_py(),
        tasks_per_second=_rate(tasks["finished_at"], _last_start(directory), until),
        parts=parts,
        other_files=other,
        failed=_failed(directory),
        broken=broken + broken_tables,
        num_bytes=_num_bytes(directory),
        holder=holder,
    )


def _configuration(directory: Path) -> tuple[Config, list[WorkUnit]]:
    """What a run was told, and the units that it evaluates itself, by checkpoint."""
    if not directory.is_dir():
        raise UserError(
            f"run_dir must be the folder of a run, got {directory}, which is none: "
            "check the path, or begin one by harness/scale.py"
        )
    path = directory / "config.yaml"
    try:
        config = read_loosely(path.read_text(encoding="utf-8"))
        units: list[WorkUnit] = []
        for k in config.evaluate.checkpoints:
            units += evaluation_units(config, k)
            if config.evaluate.reservoir:
                units += recall_units(config, k)
        return config, units
    except FileNotFoundError as error:
        raise UserError(
            f"run directory {directory} must hold a run, got no config.yaml in it: "
            "begin one by harness/scale.py, or choose another run_dir"
        ) from error
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{path} is not a run's configuration ({type(error).__name__}: {reason}): "
            "put it back, or choose another run_dir"
        ) from error


def _tasks(directory: Path) -> tuple[pa.Table, list[Place]]:
    """The committed tasks, and the files of the log that say nothing."""
    tables: list[pa.Table] = [TASKS.empty_table()]
    broken: list[Place] = []
    for path in table_files(directory / "log"):
        try:
            tables.append(read_table_file(path, TASKS))
        except FileNotFoundError:  # a driver that mends its log has taken it away
            continue
        except ValueError:
            broken.append(path)
    return pa.concat_tables(tables), broken


def _parts(directory: Path, units: list[WorkUnit]) -> tuple[list[Part], int, list[Place]]:
    """What is there of the units, how many other files there are, and which are broken."""
    rows: dict[tuple[str, str], int] = {}
    broken: list[Place] = []
    for table in ("evaluations", "reservoir"):
        for path in table_files(directory / table):
            try:
                rows[table, path.name.removesuffix(".parquet")] = len(
                    read_table_file(path, SCHEMAS[table])
                )
            except FileNotFoundError:
                continue
            except ValueError:
                broken.append(path)
    lines: dict[tuple[str, int, int, str], list[WorkUnit]] = {}
    for unit in units:
        lines.setdefault(_line(unit), []).append(unit)
    parts = [
        Part(
            *line,
            wanted=sum(unit.num_rows for unit in own),
            rows=sum(rows.get((unit.table, unit.name), 0) for unit in own),
        )
        for line, own in lines.items()
    ]
    return parts, len(rows.keys() - {(unit.table, unit.name) for unit in units}), broken


def _line(unit: WorkUnit) -> tuple[str, int, int, str]:
    """Table, checkpoint, distractors and name of the line that a unit belongs to."""
    if isinstance(unit, EvaluationUnit):
        name = f"{unit.algorithm} {unit.objective}" if unit.objective else unit.algorithm
        return unit.table, unit.num_tasks, unit.num_distractors, name
    return unit.table, unit.num_tasks, 0, unit.rule


def _failed(directory: Path) -> dict[str, str]:
    """The units that were set aside, where the run has a table of them."""
    found: dict[str, str] = {}
    for path in table_files(directory / "failures"):
        try:
            rows = pq.read_table(path, columns=["unit", "error"]).to_pylist()
        except (FileNotFoundError, pa.ArrowException):  # being replaced, or broken: begun anew
            continue
        found |= {row["unit"]: row["error"] for row in rows}
    return found


def _last_start(directory: Path) -> datetime | None:
    """When the last driver began."""
    try:
        record = json.loads((directory / "provenance.json").read_text(encoding="utf-8"))
        return datetime.fromisoformat(record["starts"][-1]["at"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None


def _rate(
    finished_at: pa.ChunkedArray, start: datetime | None, until: datetime | None
) -> float | None:
    """Tasks a second over the last minutes, none of them before the last start.

    Args:
        finished_at: of each task.
        start: of the driver; None: not known.
        until: the end of those minutes; None: the end of the last task.
    """
    if not len(finished_at):
        return None
    last: datetime = pc.max(finished_at).as_py()
    until = max(until, last) if until else last
    since = until - RATE_OVER
    if start is not None and start < until:
        since = max(since, start)
    recent = pc.sum(pc.greater(finished_at, pa.scalar(since, TASKS.field("finished_at").type)))
    return float(recent.as_py()) / (until - since).total_seconds()


def _num_bytes(directory: Path) -> int:
    """Of all files; those that go meanwhile count nothing."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += Path(folder, name).lstat().st_size
            except FileNotFoundError:
                continue
    return total
