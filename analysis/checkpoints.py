"""Print every checkpoint of runs with 95 % intervals: the tasks inferred right, and accuracies."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.summary import (
    WAYS,
    bootstrapped,
    inferred_by,
    interval,
    interval_ends,
    largest_samples,
    num_right,
    wilson,
)

_CAPTION = (
    "right: queries whose task was inferred right, with the interval by Wilson. GG and GNu:\n"
    "accuracy with the task given and inferred, with intervals by bootstrap over tasks and seeds."
)


def by_checkpoint(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Average accuracies and count right answers at each checkpoint, with 95 % intervals.

    Args:
        evaluations: rows of the table `evaluations`, from several.load_several. With several seeds,
            each pair of a task and a seed counts as a task of its own.

    Returns:
        One row for each combination of number of masks, algorithm, objective and settings. `right`
        of `queries` were inferred right. `right_low` and `right_high` are the ends of the interval
        of right / queries. Each of `accuracy_gg` and `accuracy_gnu` also has columns that end in
        `_low` and `_high`. Rows with distractors are left out.
    """
    kept = largest_samples(evaluations[evaluations["num_distractors"] == 0])
    rows = []
    for key, group in kept.groupby(["num_tasks", *WAYS], dropna=False):
        row: dict[str, Any] = dict(zip(["num_tasks", *WAYS], key, strict=True))
        row["seeds"] = group["seed"].nunique()
        row["right"], row["queries"] = num_right(group)
        rows.append(row | bootstrapped(group, "accuracy_gg", "accuracy_gnu"))
    found = pd.DataFrame(rows)
    low, high = wilson(found["right"] / found["queries"], found["queries"])
    return found.assign(right_low=low, right_high=high)


def checkpoints_table(groups: Mapping[str, pd.DataFrame]) -> str:
    """Return all checkpoints of groups of runs as a table of text.

    Args:
        groups: a mapping from the name of a group to its rows; see by_checkpoint.
    """
    shown = [row for name, rows in groups.items() for row in _shown(name, by_checkpoint(rows))]
    text: str = pd.DataFrame(shown).to_string(index=False)
    return f"checkpoints\n{text}\n{_CAPTION}"


def _shown(name: str, found: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for row, way in zip(found.to_dict("records"), inferred_by(found), strict=True):
        right = f"{row['right']} of {row['queries']} {interval_ends(row, 'right')}"
        rows.append(
            {
                "run": name,
                "inferred by": way,
                "tasks": row["num_tasks"],
                "seeds": row["seeds"],
                "right": right if way else "",
                "GG": interval(row, "accuracy_gg"),
                "GNu": interval(row, "accuracy_gnu") if way else "",
            }
        )
    return rows
