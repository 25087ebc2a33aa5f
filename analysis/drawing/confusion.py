"""Draw which tasks are confused with which."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.drawing.style import hover, name_axes, panels
from analysis.drawing.ways import Line, agreeing, by_way
from analysis.queries import confusion, last_queries

_PANELS = 4  # ways of inference with a panel
_FAINTEST = 0.25  # opacity of the smallest fraction, so that a single wrong answer is visible


def answering_ways(queries: pd.DataFrame) -> list[Line]:
    """Divide queries by the way of inference. Ways with the same answers are one.

    Args:
        queries: the result of last_queries.

    Returns:
        Pairs of a label and rows. The way with the most wrong answers is first.
    """
    found = agreeing(by_way(queries), ["inferred"])
    return sorted(found, key=lambda line: line[1]["right"].mean())


def tasks_confused(queries: pd.DataFrame) -> Figure:
    """Draw the wrong answers at the largest number of masks, by true and inferred task.

    Args:
        queries: rows of the table `queries`, with at least one wrong answer.

    Returns:
        A figure with a panel for each way of inference that gave wrong answers, at most four: those
        with the most wrong answers. A square stands for a pair of a true and an inferred task. Its
        colour is stronger if more queries of the true task got this answer. Right answers are not
        drawn. They would be on the dotted line. With many tasks, a square stands for groups of
        tasks.

    Raises:
        ValueError: no answer is wrong.
    """
    found = [line for line in answering_ways(last_queries(queries)) if not line[1]["right"].all()]
    if not found:
        raise ValueError("queries must have a wrong answer, got none: no task was confused")
    figure, axes_of = panels(len(found[:_PANELS]))
    for axes, (label, rows) in zip(axes_of, found[:_PANELS], strict=True):
        _draw(axes, rows)
        name_axes(axes, "inferred", "true task", label if len(label) < 60 else f"{label[:57]}…")
    return figure


def _draw(axes: Axes, rows: pd.DataFrame) -> None:
    cells, size = confusion(rows)
    share = cells["wrong"] / cells["asked"]
    # A square of one task has the number of the task at its centre.
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * size - 0.5
    lower_left = cells[["inferred", "task_id"]].to_numpy()
    squares = PolyCollection(
        list(lower_left[:, None] + corners),
        facecolors="C0",
        linewidths=0,
        alpha=(_FAINTEST + (1 - _FAINTEST) * share / share.max()).to_numpy(),
    )
    hover(squares, [_told(cell, size) for cell in cells.itertuples()])
    axes.add_collection(squares)
    ends = -0.5, max(rows["num_tasks"].max(), rows["inferred"].max() + 1) - 0.5
    axes.plot(ends, ends, "k:", lw=0.8)
    axes.set(xlim=ends, ylim=ends[::-1], aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=7))


def _told(cell: Any, size: int) -> str:
    groups = [
        f"{first}" if size == 1 else f"{first} to {first + size - 1}"
        for first in (cell.task_id, cell.inferred)
    ]
    share = cell.wrong / cell.asked
    return f"true {groups[0]}, inferred {groups[1]}: {cell.wrong} of {cell.asked} ({share:.1%})"
