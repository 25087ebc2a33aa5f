"""Measure the progress of a search from its files, while another process may write them.

This module imports neither Ray nor Hydra, so that harness/status.py starts fast.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.stored import value_errors
from harness.search.table import TABLE, best_trial, read_trials
from harness.storage.lock import Holder, driver_state, lock_holder


@dataclass(frozen=True)
class SearchProgress:
    """The progress of a search at one moment.

    Attributes:
        directory: absolute path of the search's folder.
        asked: number of trials of the whole search.
        metric: name of the value that the search maximises.
        ended: a mapping from status to the number of trials that have ended with this status.
        best: the row of the best finished trial in the table `trials`; None if none has finished.
        holder: the process that the lock file names; None if the lock file names no process.
    """

    directory: Path
    asked: int
    metric: str
    ended: Mapping[str, int]
    best: Mapping[str, Any] | None
    holder: Holder | None

    @property
    def state(self) -> str:
        """The state of the search; see harness.storage.lock.driver_state."""
        return driver_state(self.holder, sum(self.ended.values()) >= self.asked)


def is_search(values: Any) -> bool:
    """Return whether the content of a config.yaml is the configuration of a search."""
    return isinstance(values, Mapping) and isinstance(values.get("tune"), Mapping)


def look_at_search(directory: Path, values: Mapping[str, Any]) -> SearchProgress:
    """Measure the progress of a search, without changing its files.

    Args:
        directory: the search's folder.
        values: the content of its config.yaml.

    Raises:
        UserError: the configuration or the table is not one of a search.
        OSError: a file cannot be read.
    """
    with value_errors(directory / "config.yaml"):
        asked, metric = values["tune"].get("trials"), values["tune"].get("metric")
        if not isinstance(asked, int) or not isinstance(metric, str):
            raise ValueError(
                f"a search must have tune.trials and tune.metric, got {asked} and {metric}"
            )
    # Read the lock before the table. If a driver ends between the two reads, its last trials are
    # counted.
    holder = lock_holder(directory)
    try:
        table = read_trials(directory / TABLE)
    except FileNotFoundError:
        return SearchProgress(directory, asked, metric, {}, None, holder)
    ended = Counter(table["status"].to_pylist())
    return SearchProgress(directory, asked, metric, ended, best_trial(table, metric), holder)
