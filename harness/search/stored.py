"""Open the folder of a search to read it from Python."""

from pathlib import Path
from typing import Any

import pyarrow as pa
from ray.tune import ExperimentAnalysis, ResultGrid

from harness.config.identity import job_from_yaml
from harness.places.places import local
from harness.places.reading import parse_yaml
from harness.search.config import TuneJob
from harness.search.signed import check_signed, make_key, signed_files
from harness.search.table import TABLE, best_trial, read_trials
from harness.search.tuning import RAY_FOLDER


class StoredSearch:
    """A search that `harness/tune.py` has begun. It may be running, stopped or complete.

    Attributes:
        config: the configuration of the search.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.config = job_from_yaml(directory / "config.yaml", TuneJob)

    def table(self) -> pa.Table:
        """Read the table `trials`: one row for each trial that has ended.

        Raises:
            FileNotFoundError: no trial has ended yet.
            ValueError, UserError, OSError: the file is refused or cannot be read.
        """
        return read_trials(self._directory / TABLE)

    def best(self) -> dict[str, Any] | None:
        """Return the configuration of the best finished trial, as nested mappings; None if none.

        Raises:
            FileNotFoundError, ValueError, UserError, OSError: see table.
        """
        found = best_trial(self.table(), self.config.tune.metric)
        return None if found is None else dict(parse_yaml(found["config"]))

    def results(self) -> ResultGrid:
        """Read Ray Tune's state of the search.

        The keys of `Result.config` are the searched keys. `Result.metrics` has the last report of
        the trial; see `harness.trainable`.

        Raises:
            UnsignedError: another user may have written the state. Reading it could run any
                program.
        """
        state = self._directory / RAY_FOLDER
        make_key()
        check_signed(state)
        analysis = ExperimentAnalysis(
            str(state),
            storage_filesystem=signed_files(),
            default_metric=self.config.tune.metric,
            default_mode="max",
        )
        return ResultGrid(analysis)


def open_search(run_dir: str | Path) -> StoredSearch:
    """Open a search to read it from Python.

    Args:
        run_dir: the folder of the search.

    Raises:
        UserError: the folder holds no search.
    """
    return StoredSearch(local(str(run_dir)))
