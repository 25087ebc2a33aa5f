"""Count which tasks are confused, from rows of the table `queries`."""

import numpy as np
import pandas as pd

from analysis.summary import WAYS

MOST_BINS = 40  # rows and columns of a picture of all tasks


def last_queries(queries: pd.DataFrame) -> pd.DataFrame:
    """Keep the queries at the largest number of masks, each once, without untrained masks.

    `evaluate.py` may have asked a query again, with another number of batches or tasks. Its answer
    is then the same.

    Args:
        queries: rows of the table `queries`.
    """
    own = queries[queries["num_distractors"] == 0]
    last = own[own["num_tasks"] == own["num_tasks"].max()]
    return last.drop_duplicates([*WAYS, "task_id", "batch"])


def of_way(queries: pd.DataFrame, way: pd.Series) -> pd.DataFrame:
    """Return the queries of one way of inference.

    Args:
        queries: rows of the table `queries`.
        way: a row of any table with the columns of summary.WAYS.
    """
    same = [
        queries[name].isna() if pd.isna(way[name]) else queries[name] == way[name] for name in WAYS
    ]
    return queries[np.logical_and.reduce(same)]


def confusion(rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Count the wrong answers by true and inferred task.

    Args:
        rows: rows of the table `queries` of one way and one number of masks.

    Returns:
        Two values. A data frame with a row for each pair that occurs: `task_id` and `inferred` are
        the lowest tasks of two groups of tasks, `wrong` is the number of wrong answers of this
        pair, and `asked` the number of queries of the true tasks. Second, the number of tasks of a
        group: 1 for up to MOST_BINS tasks, and more for more tasks.
    """
    num_tasks = int(max(rows["num_tasks"].max(), rows["inferred"].max() + 1))
    size = -(-num_tasks // MOST_BINS)
    grouped = rows.assign(
        task_id=rows["task_id"] // size * size, inferred=rows["inferred"] // size * size
    )
    asked = grouped.groupby("task_id").size()
    wrong = grouped[~grouped["right"]].groupby(["task_id", "inferred"]).size()
    found = wrong.rename("wrong").reset_index()
    return found.assign(asked=found["task_id"].map(asked)), size


def wrong_counts(rows: pd.DataFrame) -> tuple[int, int, int]:
    """Count the queries, the wrong answers, and those whose runner-up is the right task.

    Args:
        rows: rows of the table `queries` of a run whose mask i belongs to task i.
    """
    wrong = rows[~rows["right"]]
    return len(rows), len(wrong), int((wrong["runner_up"] == wrong["task_id"]).sum())
