"""Columns that several tables of a report share."""

from collections.abc import Sequence

import pandas as pd

from analysis.pages.content import Cell, as_cell
from analysis.summary import RECALL_SETTINGS, SETTINGS

# Column of a table -> its head in the report.
_HEADS = {
    "num_distractors": "untrained masks",
    "num_images": "images",
    "batch_size": "batch size",
    "log_base": "base",
    "block": "bits per reservoir",
    "most_steps": "most sweeps",
    "num_tasks": "tasks",
    "gradients": "gradient steps",
    "accuracy_gg": "accuracy GG",
    "accuracy_gns": "accuracy GNs",
    "accuracy_gnu": "accuracy GNu",
}


_SETTINGS = {
    *("method", "outputs", "seeds", "num_distractors", "block"),
    *(*SETTINGS, *RECALL_SETTINGS),
}


def head(column: str) -> str:
    """Return the head of a table's column in the report."""
    return _HEADS.get(column, column.replace("_", " "))


def way_columns(rows: pd.DataFrame, ways: Sequence[str]) -> tuple[list[str], list[list[Cell]], str]:
    """Make the heads and cells of the columns that say how tasks were inferred or masks recalled.

    Args:
        rows: rows of a table.
        ways: names of these columns.

    Returns:
        The heads of the columns, the cells of each row, and a sentence for the caption. A setting
        that has only one value is not a column, but stands in the sentence. A setting without any
        value is left out. So is the number of untrained masks, if there are none.
    """
    used, fixed = [], []
    for name in ways:
        values = rows[name].dropna().unique()
        if len(values) > 1 or name not in _SETTINGS:
            used += [name] if len(values) else []
        elif len(values) and not (name == "num_distractors" and values[0] == 0):
            fixed.append(f"{head(name)} {as_cell(values[0]).text}")
    cells = [[as_cell(value) for value in row] for row in rows[used].itertuples(index=False)]
    told = f"Settings: {', '.join(fixed)}." if fixed else ""
    # Some versions of pandas yield no tuple if no column is left.
    return [head(name) for name in used], cells or [[] for _ in range(len(rows))], told


def bytes_cell(count: float) -> Cell:
    """Make the cell of a number of bytes, such as "98.7 MB". It sorts by the number."""
    return Cell(size(int(count)), float(count))


def size(count: int) -> str:
    """Write a number of bytes for people, such as "98.7 MB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"
