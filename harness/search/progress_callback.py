"""Show the progress of a search, and keep its table up to date."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from harness.reporting.display import Display
from harness.search.trials import has_ended

BAR = "trials"
_SECONDS_BETWEEN_TABLES = 2.0


class ProgressCallback(tune.Callback):
    """A callback of Ray Tune that shows how many trials have ended, and the best metric.

    It also keeps the table of the trials that have ended up to date.
    """

    def __init__(
        self,
        display: Display,
        metric: str,
        last_rung: int,
        keep: Callable[[Sequence[Trial]], None],
    ) -> None:
        """Make the callback.

        Args:
            display: shows the progress.
            metric: name of the reported value that the search maximises.
            last_rung: the rung of the last stage.
            keep: function that writes the table of the trials that have ended.
        """
        self._display, self._metric, self._last_rung = display, metric, last_rung
        self._keep, self._kept_at, self._num_kept = keep, -_SECONDS_BETWEEN_TABLES, 0
        self._done, self._best = 0, None

    def begin(self, total: int, ended: int) -> None:
        """Show the progress bar.

        Args:
            total: number of trials.
            ended: number of trials that ended before this start.
        """
        self._done = ended
        self._display.add(BAR, total, ended, "trials", f"best {self._metric}")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Keep the best metric. Only trials that have completed all stages count."""
        if result["rung"] == self._last_rung:
            found = result[self._metric]
            self._best = found if self._best is None else max(self._best, found)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count an ended trial, and update the progress bar."""
        self._done += 1
        self._display.update(BAR, self._done, self._best)

    on_trial_error = on_trial_complete

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Write the table again if more trials have ended, at most every two seconds."""
        ended = [trial for trial in trials if has_ended(trial)]
        waited = time.monotonic() - self._kept_at >= _SECONDS_BETWEEN_TABLES
        if waited and len(ended) > self._num_kept:
            self._keep(ended)
            self._kept_at, self._num_kept = time.monotonic(), len(ended)
