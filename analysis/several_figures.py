"""Draw figures of several runs. Each function makes one Figure from the result of over_seeds."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.drawing.style import (
    hover,
    legend_below,
    line_style,
    name_axes,
    panels,
    tick_checkpoints,
    told,
)
from analysis.drawing.ways import agreeing
from analysis.several import lines

# With two seeds, Student's t makes intervals wider than an axis from 0 to 1 in most cases.
FEWEST_FOR_BAND = 3


def accuracy_over_seeds(over: pd.DataFrame) -> Figure:
    """Draw accuracy and task accuracy against the number of tasks, as means over seeds.

    Args:
        over: the result of over_seeds, for one number of outputs.

    Returns:
        A figure. Left: accuracy with the task inferred (GNu), and with the task given (GG). Right:
        the fraction of queries whose task was inferred right. If there are three seeds or more,
        bands are 95 % intervals of the mean over seeds by Student's t. Ways that agree in all
        values are one line.
    """
    figure, (left, right) = panels(2)
    found = agreeing(lines(over), ["accuracy_gnu", "task_accuracy"])
    for number, (label, rows) in enumerate(found):
        _band(left, "num_tasks", "accuracy_gnu", rows, label, line_style(number))
        _band(right, "num_tasks", "task_accuracy", rows, label, line_style(number))
    own = over[over["num_distractors"] == 0].drop_duplicates("num_tasks")
    if len(own):
        style = "k--" if len(own) > 1 else "k_"  # one point makes no line
        _band(left, "num_tasks", "accuracy_gg", own, "task given (GG)", style)
    # The vertical axes start at 0.8 or lower. Otherwise the noise of a line near 1 fills the panel.
    for axes, column in ((left, "accuracy_gnu"), (right, "task_accuracy")):
        axes.set_ylim(min(0.8, over[column].min() - 0.02), 1.005)
        tick_checkpoints(axes, over["num_tasks"])
    name_axes(left, "number of tasks", "accuracy", "correct labels")
    name_axes(right, "number of tasks", "task accuracy", "correctly inferred tasks")
    legend_below(figure)
    return figure


def task_accuracy_by_outputs(over: pd.DataFrame) -> Figure:
    """Draw the task accuracy against the number of outputs, at the largest number of tasks.

    Args:
        over: the result of over_seeds, for several numbers of outputs.

    Returns:
        A figure with one line for each way of inference, such as one-shot by H and by G. If there
        are three seeds or more, bands are 95 % intervals of the mean over seeds by Student's t.
        Ways that agree in all values are one line.
    """
    figure, [axes] = panels(1)
    last = over[over["num_tasks"] == over["num_tasks"].max()]
    for number, (label, rows) in enumerate(agreeing(lines(last), ["task_accuracy"])):
        _band(axes, "outputs", "task_accuracy", rows, label, line_style(number))
    axes.set_ylim(-0.02, 1.02)
    tick_checkpoints(axes, last["outputs"])
    name_axes(axes, "number of outputs", "task accuracy", "correctly inferred tasks")
    legend_below(figure)
    return figure


def _band(axes: Axes, x: str, y: str, rows: pd.DataFrame, label: str, style: str) -> None:
    """Draw means as a line, and the intervals of the means as a band around it."""
    ordered = rows.sort_values(x)
    [line] = axes.plot(ordered[x], ordered[y], style, ms=5, label=label)
    low, high = ordered[f"{y}_low"], ordered[f"{y}_high"]
    drawn = ordered[ordered["seeds"] >= FEWEST_FOR_BAND]
    ends = drawn[x], drawn[f"{y}_low"], drawn[f"{y}_high"]
    if len(drawn) > 1:
        axes.fill_between(*ends, color=line.get_color(), alpha=0.08, lw=0)
    elif len(drawn) == len(ordered):  # one point has no band
        axes.vlines(*ends, color=line.get_color())
    points = zip(ordered[x], ordered[y], low, high, strict=True)
    what = x.removeprefix("num_")
    hover(line, [told(label, at, what, *values) for at, *values in points])
