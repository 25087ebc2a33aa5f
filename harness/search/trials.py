"""The table `trials` of a search, made from Ray Tune's trials.

While a search runs, the table has the trials that have ended so far. At the end it has all trials.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from ray.tune.experiment import Trial

from harness.config.identity import to_yaml
from harness.config.keys import leaf
from harness.errors import Failure
from harness.run.provenance import config_hash
from harness.search.search import Search
from harness.search.table import FAILED, FINISHED, STOPPED_EARLY, TABLE
from harness.tables.files import write_table

# The measured values that a trial reports at the end of each stage.
MEASURED = ("accuracy", "task_accuracy", "expected_task_accuracy", "expected_accuracy")


def has_ended(trial: Trial) -> bool:
    """Return whether Ray Tune runs no more stage of a trial."""
    return trial.status in (Trial.TERMINATED, Trial.ERROR)


def has_finished(trial: Trial, last_rung: int) -> bool:
    """Return whether a trial has completed all stages; the last stage has the rung `last_rung`."""
    reported = trial.last_result or {}
    return trial.status != Trial.ERROR and reported.get("rung") == last_rung


def trial_number(trial: Trial) -> int:
    """Return the number of a trial. Trials are numbered from 0 in the order of their starts."""
    return int(trial.experiment_tag.partition("_")[0]) - 1  # Ray Tune begins with 1


class TrialsTable:
    """Makes the table `trials` again and again while trials end.

    The row of a trial is made once, because its configuration takes time to compute. Only the row
    of a failed trial is made each time, because Ray Tune may store the error after the trial's end.

    Args:
        search: the specification of the search.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._rows: dict[str, dict[str, Any]] = {}

    def of(self, trials: Sequence[Trial]) -> pa.Table:
        """Make the table of some trials.

        Args:
            trials: trials that have ended, in any order.

        Returns:
            One row per trial, in the order in which the trials started.
        """
        for trial in trials:
            if trial.trial_id not in self._rows or trial.status == Trial.ERROR:
                self._rows[trial.trial_id] = _row(self._search, trial)
        # A restored search lists its trials in another order.
        rows = [self._rows[trial.trial_id] for trial in sorted(trials, key=trial_number)]
        return pa.Table.from_pylist(rows, schema=self._search.schema)


def write_trials(directory: Path, table: pa.Table, search_id: str) -> None:
    """Write the table `trials` into the folder of a search.

    Args:
        directory: the search's folder.
        table: the table.
        search_id: the identity of the search, which the file stores.
    """
    path = directory / TABLE
    path.parent.mkdir(exist_ok=True)
    write_table(table, path, search_id)


def _row(search: Search, trial: Trial) -> dict[str, Any]:
    reported = trial.last_result or {}
    finished, failed = has_finished(trial, search.tune.last_rung), trial.status == Trial.ERROR
    measured_at = reported.get("measured_at")
    config = search.config(trial.config)
    values = {d.key: _cell(d.kind, leaf(config, d.key)) for d in search.dimensions}
    return {
        "trial": trial_number(trial),
        "status": FAILED if failed else FINISHED if finished else STOPPED_EARLY,
        **values,
        **{name: reported.get(name) for name in MEASURED},
        "among": search.tune.among,
        "num_tasks": search.base.tasks,
        "steps": reported.get("steps", 0),
        "seconds": reported.get("time_total_s", 0.0),
        "measured_at": None if measured_at is None else datetime.fromtimestamp(measured_at, UTC),
        "error": _error_line(trial) if failed else None,
        "config_hash": config_hash(config),
        "config": to_yaml(config),
    }


def _error_line(trial: Trial) -> str | None:
    """Describe the last error of a failed trial in one line; None if its error is not stored."""
    try:
        error = trial.get_pickled_error()
    except Exception:  # the class of the error may be the user's own, and missing in this process
        return None
    if error is None:
        return None
    return Failure.described(getattr(error, "cause", None) or error, str(error)).line


def _cell(kind: Any, value: Any) -> Any:
    """Convert the value of a searched key to the type of its column.

    If `kind`, the key's declared type, is int, float or bool, the column has this type, and the
    value stays the same. Every other value becomes a text.
    """
    return value if kind in (int, float, bool) else str(value)
