"""The lines of a figure: the ways to infer a task, named by what they differ in.

A way is an algorithm with an objective and settings.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from analysis.summary import GIVEN, SETTINGS, largest_samples, told_apart

Line = tuple[str, pd.DataFrame]  # label and rows
_KEYS = ("num_tasks", "outputs", "task_id", "batch")


def lines(evaluations: pd.DataFrame) -> list[Line]:
    """Divide rows of the table `evaluations` into the lines of a figure.

    A line has the rows of one way. If a task was evaluated twice with the same settings, only the
    row with more batches is kept. Evaluations with distractors get separate lines. Distractors are
    untrained masks, so these results cannot be compared with results without distractors.

    Returns:
        One pair per line of the figure: the label of the line, and its rows.
    """
    return by_way(largest_samples(evaluations))


def by_way(rows: pd.DataFrame) -> list[Line]:
    """Divide rows by the way of inference, and name the ways by what they differ in.

    Args:
        rows: rows of the table `evaluations` or `queries`.
    """
    trained = rows["num_tasks"] - rows["num_distractors"]
    rows = rows.assign(trained=trained.where(rows["num_distractors"] > 0))
    by = ["algorithm", "objective", "trained", *SETTINGS]
    found = list(rows.groupby(by, dropna=False))
    ways = pd.DataFrame([key for key, _ in found], columns=by)
    labels = []
    for way, apart in zip(ways.itertuples(), told_apart(ways, [*SETTINGS, "trained"]), strict=True):
        objective = f" {way.objective}" if isinstance(way.objective, str) else ""
        beside = "" if np.isnan(way.trained) else ", with untrained masks"
        labels.append(f"{way.algorithm}{objective}{beside}{apart}")
    return [(label, part) for label, (_, part) in zip(labels, found, strict=True)]


def numbering(evaluations: pd.DataFrame) -> Callable[[pd.DataFrame], int]:
    """Give each way a number, which chooses the colour and the markers of its lines.

    A way has the same number in all figures of the same rows. The ways without inference and with
    distractors come last, because some figures leave them out.

    Args:
        evaluations: rows of the table `evaluations`.

    Returns:
        A function from rows of one way to the number of the way, from 0.
    """
    ways = [_way(rows) for _, rows in lines(evaluations)]
    ways.sort(key=lambda way: (way[0] == GIVEN, way[-1]))
    return lambda rows: ways.index(_way(rows))


def _way(rows: pd.DataFrame) -> tuple[str, ...]:
    first = rows.iloc[0]
    trained = first["num_tasks"] - first["num_distractors"] if first["num_distractors"] else ""
    # A missing value is None or NaN, depending on the other rows.
    values = ["" if pd.isna(first[name]) else first[name] for name in ("objective", *SETTINGS)]
    return (str(first["algorithm"]), *map(str, values), str(trained))


def agreeing(found: Sequence[Line], columns: Sequence[str]) -> list[Line]:
    """Join the lines that have the same values, so that a figure draws them once.

    Args:
        found: lines of a figure.
        columns: the columns that the figure shows. Two lines agree if these columns are equal for
            each number of masks, number of outputs, task and batch.

    Returns:
        The lines in the same order. A line that stands for several lines has a label such as
        "2 ways, identical: one_shot H, one_shot G", and the rows of the first of these lines.
    """
    groups: dict[bytes, list[Line]] = {}
    for label, rows in found:
        keys = [key for key in _KEYS if key in rows]
        values = rows.sort_values(keys)[[*keys, *columns]].to_numpy(dtype=float)
        groups.setdefault(values.round(9).tobytes(), []).append((label, rows))
    joined = []
    for same in groups.values():
        labels = [label for label, _ in same]
        told = f"{len(same)} ways, identical: " if len(same) > 1 else ""
        joined.append((told + ", ".join(labels), same[0][1]))
    return joined
