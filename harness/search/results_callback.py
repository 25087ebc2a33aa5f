"""Write the reports of each trial to the file from which Ray Tune makes data frames.

Ray Tune's own logger for this file would write three files per trial, and Ray Tune would copy the
files of all trials every two seconds.
"""

import json
from pathlib import Path
from typing import Any

from ray import tune

from harness.search.signed import REPORTS


class ResultsCallback(tune.Callback):
    """A callback of Ray Tune that adds each report of a trial as a line of JSON.

    Args:
        folder: the folder of Ray Tune's state. A trial has a folder in it with its identifier.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Add a report. A trial that is tried again begins its file again."""
        path = self._folder / str(trial.trial_id) / REPORTS
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w" if result["training_iteration"] == 1 else "a") as file:
            file.write(json.dumps(result, default=str) + "\n")
