"""The table at the end of a search: the best trials, and the number of trials by status."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from harness.reporting.display import fits, say
from harness.reporting.end_table import narrow_table
from harness.search.table import FAILED, FINISHED, STOPPED_EARLY

_SHOWN = 10
_CAPTION = (
    'Accuracies are means over the tasks of a trial. "label" is the accuracy with the task given. '
    '"task" is the task accuracy among the masks of the trial. "of {among}" is the expected task '
    'accuracy among {among} masks. "both" is the product of the columns "label" and "of {among}". '
    '"s" is the time of one actor in seconds.'
)


def print_trials(console: Console, table: pa.Table, metric: str, keys: Sequence[str]) -> None:
    """Print the best trials, and the number of trials of each status.

    Args:
        console: the console to print on.
        table: the table `trials`.
        metric: name of the column that the search maximised.
        keys: the searched keys, such as "train.smoothing".
    """
    rows = [row for row in table.to_pylist() if row["status"] == FINISHED]
    rows.sort(key=lambda row: -row[metric])
    if rows:
        console.print(_fitting(console, rows[:_SHOWN], metric, keys))
    count = Counter(table["status"].to_pylist())
    say(
        console,
        f"{len(table)} trials: {count[FINISHED]} finished, {count[STOPPED_EARLY]} stopped early, "
        f"{count[FAILED]} failed; {sum(table['seconds'].to_pylist()):.0f} s of actor time",
    )


def _fitting(
    console: Console, rows: Sequence[dict[str, Any]], metric: str, keys: Sequence[str]
) -> Table:
    """Make a table of trials that is not wider than the screen, so that no value is cut.

    If the screen has no space for the columns of all keys, the last keys have no column. The
    caption then names these keys.
    """
    for num_keys in range(len(keys), -1, -1):
        table = _best(rows, metric, keys[:num_keys])
        if fits(console, table):
            break
    if left_out := keys[num_keys:]:
        table.caption = f"{table.caption} Only in the table trials: {', '.join(left_out)}."
    return table


def _best(rows: Sequence[dict[str, Any]], metric: str, keys: Sequence[str]) -> Table:
    among = rows[0]["among"]
    table = narrow_table(f"best trials by {metric}", _CAPTION.format(among=among))
    for name in ("trial", "label", "task", f"of {among}", "both", "steps", "s"):
        table.add_column(name, justify="right", no_wrap=True)
    for key in keys:
        table.add_column(key.rpartition(".")[2], no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["trial"]),
            *(
                f"{row[name]:.4f}"
                for name in (
                    "accuracy",
                    "task_accuracy",
                    "expected_task_accuracy",
                    "expected_accuracy",
                )
            ),
            str(row["steps"]),
            f"{row['seconds']:.1f}",
            *(_said(row[key]) for key in keys),
        )
    return table


def _said(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
