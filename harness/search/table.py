"""The file of the table `trials`, which has a row for each trial of a search that has ended.

This module imports neither Ray nor Hydra, so that harness/status.py starts fast.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.places.reading import read_bytes
from harness.tables.columns import column, table_schema
from harness.tables.files import read_table_file

TABLE = "trials/trials.parquet"  # in the folder of the search
FINISHED, STOPPED_EARLY, FAILED = "finished", "stopped", "failed"  # the status of a trial


def trials_schema(searched: Mapping[str, pa.DataType]) -> pa.Schema:
    """Make the schema of a search's table `trials`: one row per trial.

    Args:
        searched: a mapping from a configuration key that the search varies, such as
            train.learning_rate, to the type of its values. Every key has a column.
    """
    return table_schema(
        "trials",
        2,
        [
            column("trial", pa.int64(), "1", "trial number, from 0, in the order of the starts"),
            column(
                "status",
                pa.string(),
                "",
                "finished: all training steps are done; stopped: other trials were better; failed: "
                "the trial failed three times",
            ),
            *(
                column(key, kind, "", "value of this configuration key in the trial")
                for key, kind in searched.items()
            ),
            *(
                column(name, pa.float64(), "fraction", description, nullable=True)
                for name, description in {
                    "accuracy": "fraction of test images with the right label, if the task is "
                    "given: mean over tasks",
                    "task_accuracy": "fraction of batches whose task was inferred right among the "
                    "trial's own masks",
                    "expected_task_accuracy": "task accuracy expected for the number of masks in "
                    "the column `among`, computed from the margins among the trial's own masks",
                    "expected_accuracy": "accuracy times expected_task_accuracy",
                }.items()
            ),
            column("among", pa.int64(), "tasks", "number of masks for expected_task_accuracy"),
            column("num_tasks", pa.int64(), "tasks", "masks that the trial trained"),
            column("steps", pa.int64(), "steps", "training steps per task so far"),
            column("seconds", pa.float64(), "seconds", "time of one actor to train and measure"),
            column(
                "measured_at",
                pa.timestamp("us", tz="UTC"),
                "UTC",
                "time of the trial's last measurement",
                nullable=True,
            ),
            column("error", pa.string(), "", "last error of a failed trial", nullable=True),
            column(
                "config_hash",
                pa.string(),
                "",
                "hash of the configuration values that change results",
            ),
            column("config", pa.string(), "YAML", "the trial's configuration, with every value"),
        ],
    )


def best_trial(table: pa.Table, metric: str) -> dict[str, Any] | None:
    """Find the finished trial with the largest metric.

    Args:
        table: the table `trials`.
        metric: name of the column to maximise.

    Returns:
        The row of this trial, as a mapping from column name to value. If several trials have the
        largest metric, this is the row of the first of them. None if no trial has finished.
    """
    finished = [row for row in table.to_pylist() if row["status"] == FINISHED]
    return max(finished, key=lambda row: row[metric], default=None)


def read_trials(path: Path) -> pa.Table:
    """Read the table `trials`. Its file names the searched keys.

    Raises:
        FileNotFoundError: no trial has ended yet.
        ValueError: the file is damaged, or is another table.
        UserError: another version of the program wrote the file.
        OSError: the file cannot be read.
    """
    data = read_bytes(path)
    try:
        found = pq.read_schema(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a whole Parquet file") from error
    fixed = set(trials_schema({}).names)
    searched = {one.name: one.type for one in found if one.name not in fixed}
    return read_table_file(path, trials_schema(searched))
