"""Copy a search to loggers: each trial, and the search itself, are runs of each logger.

The copy of a trial gets what the trial reports at the end of each stage. The copy of the search
gets the best metric so far.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from harness.config.keys import keys, leaf
from harness.errors import UserError
from harness.reporting.loggers.begun import Begun, warn_of_failure
from harness.reporting.loggers.protocol import Logged, Logger, begin_loggers
from harness.search.search import Search
from harness.search.space import flat_space
from harness.search.trials import MEASURED, has_ended, has_finished, trial_number


class LoggersCallback(tune.Callback):
    """A callback of Ray Tune that copies a search to loggers.

    If a logger fails, a warning is logged, and the search goes on without the logger. Ray Tune
    stores which trials are copied. So a continued search copies only the other trials; of a trial
    that ended without a copy, the copy has the last report.

    Args:
        search: the specification of the search.
        directory: the search's folder.
        search_id: the identity of the search.

    Raises:
        UserError: a logger cannot begin.
    """

    def __init__(self, search: Search, directory: Path, search_id: str) -> None:
        self._search, self._directory, self._id = search, directory, search_id
        self._failed: set[str] = set()  # names of loggers
        self._whole = Begun(begin_loggers(search.base.loggers, self._of_search()), self._failed)
        self._open: dict[str, Begun] = {}  # trial -> the copies of this trial, which is running
        self._copied: dict[str, set[str]] = {}  # logger -> the trials that it has copied to the end
        self._num_ended = 0

    @property
    def _names(self) -> list[str]:
        """The names of the loggers that have not failed."""
        return [name for name in self._search.base.loggers if name not in self._failed]

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Copy the report of a stage."""
        if not self._names:
            return
        if trial.trial_id not in self._open:
            self._open[trial.trial_id] = self._begin(self._names, trial)
        self._open[trial.trial_id].log(_values(result), result["steps"])

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """End the copies of the trials that have ended, and copy the best metric so far."""
        ended = [trial for trial in trials if has_ended(trial)]
        if not self._names or len(ended) == self._num_ended:
            return
        self._num_ended = len(ended)
        for trial in ended:
            self._finish(trial)
        metric, last_rung = self._search.tune.metric, self._search.tune.last_rung
        scores = [trial.last_result[metric] for trial in ended if has_finished(trial, last_rung)]
        if scores:
            self._whole.log({f"search/best_{metric}": max(scores)}, len(ended))

    def get_state(self) -> dict[str, Any] | None:
        """Return which trials each logger has copied, for Ray Tune to store."""
        return {name: sorted(trials) for name, trials in self._copied.items()} or None

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over what an earlier start of the search has copied."""
        self._copied = {name: set(trials) for name, trials in state.items()}

    def end(self) -> None:
        """Close all copies."""
        for begun in (*self._open.values(), self._whole):
            begun.end()

    def _begin(self, names: Sequence[str], trial: Trial) -> Begun:
        """Begin a copy of a trial with some loggers. A logger that cannot begin is left out."""
        logged = self._of_trial(trial)
        found: dict[str, Logger] = {}
        for name in names:
            try:
                found |= begin_loggers([name], logged)
            except UserError as error:
                warn_of_failure(name, error)
                self._failed.add(name)
        return Begun(found, self._failed)

    def _finish(self, trial: Trial) -> None:
        """End the copies of a trial that has ended. First make the copies that do not exist."""
        identity = trial.trial_id
        begun = self._open.pop(identity, None)
        if begun is None:
            missing = [one for one in self._names if identity not in self._copied.get(one, ())]
            if not missing:
                return
            begun, report = self._begin(missing, trial), trial.last_result or {}
            if values := _values(report):
                begun.log(values, report["steps"])
        begun.end(failed=trial.status == Trial.ERROR)
        for name in self._names:
            self._copied.setdefault(name, set()).add(identity)

    def _of_search(self) -> Logged:
        base, settings = self._search.base, self._search.tune
        options = {key: leaf(base, key) for key in keys(base)}
        options |= {f"tune.{key}": leaf(settings, key) for key in keys(settings) if key != "space"}
        options |= {f"tune.space.{key}": text for key, text in flat_space(settings.space).items()}
        return Logged(self._directory, self._identity(""), options, axis="trials")

    def _of_trial(self, trial: Trial) -> Logged:
        config = self._search.config(trial.config)
        return Logged(
            self._directory,
            self._identity(trial.trial_id),
            {key: leaf(config, key) for key in keys(config)},
            axis="steps",
            trial=f"trial-{trial_number(trial)}",
            search=self._identity(""),
            searched=[dimension.key for dimension in self._search.dimensions],
        )

    def _identity(self, trial: str) -> str:
        named = f"{self._id} {self._directory} {trial}"
        return hashlib.sha256(named.encode()).hexdigest()[:16]


def _values(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the measured values of a report. A trial that failed early has no report, thus {}."""
    return {f"trial/{name}": report[name] for name in MEASURED if name in report}
