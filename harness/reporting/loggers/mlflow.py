"""Copy a run to MLflow: to the server that MLFLOW_TRACKING_URI names, or to a file.

Without this variable, the file is mlflow.db in the folder that contains the run directory, so that
MLflow compares the runs of this folder. To look at them, type
`mlflow ui --backend-store-uri sqlite:///runs/mlflow.db`. MLflow shows the trials of a search below
the run of the search.
"""

import logging
import os
import time
from collections.abc import Mapping

# MLflow reads this variable when it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from harness.config.kinds import as_typed
from harness.reporting.loggers.protocol import Logged

EXPERIMENT = "supermask-scaling"
FILE = "mlflow.db"
_IDENTITY = "supermask.identity"  # the tag by which a later start finds the run again
_AT_ONCE = 100  # MLflow takes at most this number of parameters in one call


class MLflow:
    """A logger that writes to MLflow; see Logger. A later start continues the same MLflow run."""

    def begin(self, run: Logged) -> None:
        """See Logger.begin."""
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # no lines about making the file
        file = run.directory.parent / FILE
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{file}"
        self._client = MlflowClient(tracking_uri=uri)
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT, run)
        known = self._find(experiment, run.identity)
        if known is not None:
            self._run = known
            self._client.update_run(self._run, status="RUNNING")
            return
        tags = {_IDENTITY: run.identity}
        if run.search and (search := self._find(experiment, run.search)):
            tags[MLFLOW_PARENT_RUN_ID] = search
        made = self._client.create_run(experiment, tags=tags, run_name=run.name)
        self._run = made.info.run_id
        options = [Param(key, as_typed(value)) for key, value in run.options.items()]
        for first in range(0, len(options), _AT_ONCE):
            self._client.log_batch(self._run, params=options[first : first + _AT_ONCE])

    def _experiment(self, name: str, run: Logged) -> str:
        """Return MLflow's identifier of an experiment, which is made if it does not exist."""
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(name))

    def _find(self, experiment: str, identity: str) -> str | None:
        """Return MLflow's identifier of a run that an earlier call has made; None if none has."""
        found = self._client.search_runs(
            [experiment], f"tags.`{_IDENTITY}` = '{identity}'", max_results=1
        )
        return str(found[0].info.run_id) if found else None

    def log(self, values: Mapping[str, float], at: int) -> None:
        """See Logger.log."""
        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, at) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def end(self, *, failed: bool = False) -> None:
        """See Logger.end."""
        self._client.set_terminated(self._run, status="FAILED" if failed else "FINISHED")
