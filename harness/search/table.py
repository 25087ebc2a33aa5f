"""The file of the table `trials`, which has a row for each trial of a search that has ended.

This module imports neither Ray nor Hydra, so that harness/status.py starts fast.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.places.reading import read_bytes
from harness.tables.files import read_table_file
from harness.tables.schemas import trials_schema

TABLE = "trials/trials.parquet"  # in the folder of the search
FINISHED, STOPPED_EARLY, FAILED = "finished", "stopped", "failed"  # the status of a trial


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
    searched = {column.name: column.type for column in found if column.name not in fixed}
    return read_table_file(path, trials_schema(searched))
