"""Draw accuracy, task accuracy and wrongly inferred tasks against the number of masks."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.drawing.style import (
    hover,
    legend_below,
    line_style,
    name_axes,
    panels,
    place_beside,
    tick_checkpoints,
    told,
)
from analysis.drawing.ways import agreeing, lines, numbering
from analysis.summary import bootstrap

MASKS = "masks in the superposition"
_LARGEST_RATIO = 30  # of two fractions that a linear axis can show


def accuracy_by_masks(evaluations: pd.DataFrame) -> Figure:
    """Draw accuracy and task accuracy against the number of masks in the superposition.

    Args:
        evaluations: rows of the table `evaluations`.

    Returns:
        A figure. Left: accuracy with the task given (GG), and with the task inferred (GNu: if the
        inferred task is wrong, the accuracy counts as 0). Right: the fraction of queries whose task
        was inferred right. Points are means over tasks. Bars are 95 % intervals by bootstrap over
        tasks. Ways that agree in all values are one line.
    """
    figure, (left, right) = panels(2)
    found = agreeing(lines(evaluations), ["accuracy_gnu", "task_accuracy"])
    number_of = numbering(evaluations)
    for axes, column in ((left, "accuracy_gnu"), (right, "task_accuracy")):
        for place, (label, rows) in enumerate(found):
            by_size = rows.groupby("num_tasks")[column]
            _draw_means(axes, by_size, label, number_of(rows), (place, len(found)))
        # The vertical axis starts at 0.8 or lower. Otherwise, the noise of a line near 1 fills it.
        means = [rows.groupby("num_tasks")[column].mean().min() for _, rows in found]
        axes.set_ylim(min(0.8, min(means) - 0.02), 1.005)
        tick_checkpoints(axes, evaluations["num_tasks"])
    own = evaluations[evaluations["num_distractors"] == 0].sort_values("num_batches")
    given = own.drop_duplicates(["num_tasks", "task_id"], keep="last")
    given = given.groupby("num_tasks")["accuracy_gg"].mean()
    style = "k--" if len(given) > 1 else "k_"  # one point makes no line
    left.plot(given.index, given, style, label="task given (GG)")
    name_axes(left, MASKS, "accuracy", "correct labels")
    name_axes(right, MASKS, "task accuracy", "correctly inferred tasks")
    legend_below(figure)
    return figure


def _draw_means(
    axes: Axes,
    by_size: "pd.api.typing.SeriesGroupBy",
    label: str,
    number: int,
    place: tuple[int, int],
) -> None:
    """Draw one line with the intervals of its means; see _draw_wrong for the arguments."""
    mean = by_size.mean()
    low, high = np.transpose([bootstrap(values) for _, values in by_size])
    x = place_beside(mean.index, *place)
    drawn = axes.errorbar(
        x,
        mean,
        yerr=[np.maximum(mean - low, 0), np.maximum(high - mean, 0)],
        fmt=line_style(number),
        color=f"C{number % 10}",
        ms=5,
        label=label,
    )
    ends = zip(mean.index, mean, low, high, strict=True)
    hover(drawn.lines[0], [told(label, k, "masks", *values) for k, *values in ends])


def objectives_compared(evaluations: pd.DataFrame) -> Figure:
    """Compare the objectives H and G, in one panel for each algorithm that was used with both.

    Args:
        evaluations: rows of the table `evaluations`.

    Returns:
        A figure. The vertical axis is the fraction of wrongly inferred tasks, 1 - task accuracy.
        The horizontal axis is the number of masks. Points are means over tasks. Bands are 95 %
        intervals by bootstrap over tasks.

    Raises:
        ValueError: no algorithm was used with more than one objective.
    """
    own = evaluations[evaluations["num_distractors"] == 0]
    both = own.groupby("algorithm")["objective"].nunique()
    algorithms = list(both[both > 1].index)
    if not algorithms:
        raise ValueError(
            "evaluations must have an algorithm with objectives H and G, got none: run "
            "harness/evaluate.py run_dir=RUN evaluate.objectives=[H,G]"
        )
    return wrong_tasks({name: own[own["algorithm"] == name] for name in algorithms}, own)


def algorithms_compared(evaluations: pd.DataFrame) -> Figure:
    """Compare algorithms, such as one-shot, ranked and binary, in one panel per objective.

    Args:
        evaluations: rows of the table `evaluations`.

    Returns:
        A figure like the figure of `objectives_compared`. Each panel has one line per algorithm.

    Raises:
        ValueError: there are fewer than two algorithms.
    """
    own = evaluations[evaluations["num_distractors"] == 0]
    if own["algorithm"].nunique() < 2:
        raise ValueError(
            "evaluations must have at least two algorithms, got fewer: run harness/evaluate.py "
            "run_dir=RUN evaluate.algorithms=[one_shot,binary]"
        )
    return wrong_tasks(by_objective(own), own)


def by_objective(evaluations: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Divide rows of the table `evaluations` by objective. The keys are titles of panels."""
    groups = evaluations.groupby(evaluations["objective"].fillna(""))
    return {f"objective {name}" if name else "without objective": rows for name, rows in groups}


def wrong_tasks(groups: dict[str, pd.DataFrame], evaluations: pd.DataFrame) -> Figure:
    """Draw the fraction of wrongly inferred tasks against the number of masks.

    Args:
        groups: title of a panel -> the panel's rows of the table `evaluations`. All panels have
            the same vertical axis.
        evaluations: rows of all ways, also of those without a panel. They give the ways their
            colours.
    """
    figure, axes_of = panels(len(groups))
    means: list[float] = []
    number_of = numbering(evaluations)
    for axes, (title, rows) in zip(axes_of, groups.items(), strict=True):
        found = agreeing(lines(rows), ["task_accuracy"])
        for place, (label, part) in enumerate(found):
            means += _draw_wrong(axes, part, label, number_of(part), (place, len(found)))
        tick_checkpoints(axes, rows["num_tasks"])
        name_axes(axes, MASKS, "fraction of wrong tasks", title)
    positive = [mean for mean in means if mean > 0]
    for axes in axes_of:
        if positive and max(positive) > _LARGEST_RATIO * min(positive):
            axes.set_yscale("symlog", linthresh=1e-3)
            axes.set_ylim(0, 1.05)
        else:
            axes.set_ylim(0, min(1.05, 2 * max(positive, default=0.5)))
    legend_below(figure)
    return figure


def _draw_wrong(
    axes: Axes, rows: pd.DataFrame, label: str, number: int, place: tuple[int, int]
) -> list[float]:
    """Draw one line with its band, and return the means of the line.

    Args:
        axes: the panel.
        rows: the line's rows of the table `evaluations`.
        label: the line's text in the legend.
        number: number of the line's way, which gives its colour and its markers.
        place: number of the line in its panel, and number of the panel's lines.
    """
    wrong = [(k, 1 - group) for k, group in rows.groupby("num_tasks")["task_accuracy"]]
    sizes, means = [k for k, _ in wrong], [float(values.mean()) for _, values in wrong]
    low, high = zip(*(bootstrap(values) for _, values in wrong), strict=True)
    x, color = place_beside(sizes, *place), f"C{number % 10}"
    [line] = axes.plot(x, means, line_style(number), color=color, ms=5, label=label)
    if len(sizes) > 1:
        axes.fill_between(x, low, high, color=color, alpha=0.15)
    else:  # one point has no band
        axes.vlines(x, low, high, color=color)
    points = zip(sizes, means, low, high, strict=True)
    hover(line, [told(label, k, "masks, wrong", *values) for k, *values in points])
    return means
