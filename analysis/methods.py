"""Compare the methods of a folder of runs: accuracy against the bytes that a task needs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import stored
from analysis.drawing.style import (
    hover,
    legend_below,
    marker,
    name_axes,
    panels,
    tick_checkpoints,
    told,
)
from analysis.several import lines, swept_values
from analysis.summary import GIVEN


def by_method(runs: Sequence[str], over: pd.DataFrame) -> pd.DataFrame:
    """Find the accuracy and the bytes of each method, at the largest number of tasks.

    Args:
        runs: the run directories, from several.runs_in.
        over: the means of these runs, from several.over_seeds.

    Returns:
        One row for each method and number of outputs. `accuracy`, `low` and `high` are the accuracy
        with the task given (GG), and its 95 % interval over seeds. `inferred` is the accuracy with
        the task inferred (GNu), by the best algorithm and objective `way`; NaN if no task is
        inferred. `bytes_per_task` is the size of a state in the store, and the task's share of the
        floats that tasks share. `is_best` is true on the Pareto front; see `on_front`.

    Raises:
        ValueError: the store of a run cannot be read.
    """
    sizes = {}
    for run in runs:
        values, layout = swept_values(run), stored.layout(run)
        sizes[values["method"], values["outputs"]] = layout
    own = over[over["num_distractors"] == 0]
    own = own[own["num_tasks"] == own["num_tasks"].max()]
    found = []
    for (method, outputs), rows in own.groupby(["method", "outputs"]):
        layout, num_tasks = sizes[method, outputs], int(rows["num_tasks"].iloc[0])
        first = rows.iloc[0]
        inferred, way = _best_way(rows[rows["algorithm"] != GIVEN])
        found.append(
            {
                "method": method,
                "outputs": outputs,
                "num_tasks": num_tasks,
                "accuracy": first["accuracy_gg"],
                "low": first["accuracy_gg_low"],
                "high": first["accuracy_gg_high"],
                "inferred": inferred,
                "way": way,
                "bytes_per_task": layout.row_bytes + layout.shared_bytes / num_tasks,
            }
        )
    points = pd.DataFrame(found)
    return points.assign(is_best=on_front(points["bytes_per_task"], points["accuracy"]))


def _best_way(rows: pd.DataFrame) -> tuple[float, str]:
    """Return the highest accuracy with the task inferred, and the label of its way of inference."""
    if rows.empty:
        return float("nan"), ""
    return max((float(way["accuracy_gnu"].iloc[0]), label) for label, way in lines(rows))


def on_front(sizes: pd.Series, accuracies: pd.Series) -> np.ndarray:
    """Mark the points on the Pareto front.

    Args:
        sizes: bytes of each point.
        accuracies: accuracy of each point.

    Returns:
        True for each point for which no other point is at least as small and at least as accurate,
        and better in one of the two.
    """
    size, accuracy = sizes.to_numpy(), accuracies.to_numpy()
    at_least = (size[None] <= size[:, None]) & (accuracy[None] >= accuracy[:, None])
    better = (size[None] < size[:, None]) | (accuracy[None] > accuracy[:, None])
    front: np.ndarray = ~(at_least & better).any(axis=1)
    return front


def accuracy_by_bytes(points: pd.DataFrame) -> Figure:
    """Draw the accuracy against the bytes per task, with the Pareto front.

    Args:
        points: the result of by_method.

    Returns:
        A figure. Points: accuracy with the task given (GG), with 95 % intervals over seeds. Open
        marks: accuracy with the task inferred (GNu). The line joins the points on the front.
    """
    figure, [axes] = panels(1)
    several_outputs = points["outputs"].nunique() > 1
    for number, row in enumerate(points.itertuples()):
        shape = marker(number)
        label = f"{row.method}, {row.outputs} outputs" if several_outputs else row.method
        bars = [[row.accuracy - row.low], [row.high - row.accuracy]]
        drawn = axes.errorbar(
            row.bytes_per_task, row.accuracy, yerr=np.nan_to_num(bars), fmt=shape, label=label
        )
        line = drawn.lines[0]
        hover(line, [told(label, row.bytes_per_task, "bytes", row.accuracy, row.low, row.high)])
        if np.isfinite(row.inferred):
            axes.plot(row.bytes_per_task, row.inferred, shape, mfc="none", color=line.get_color())
    front = points[points["is_best"]].sort_values("bytes_per_task")
    axes.plot(front["bytes_per_task"], front["accuracy"], "k-", lw=0.8, zorder=0)
    tick_checkpoints(axes, points["bytes_per_task"], "log")
    axes.margins(x=0.1)
    name_axes(axes, "bytes per task", "accuracy", "accuracy and bytes of methods")
    legend_below(figure)
    return figure
