"""Draw the density and the overlap of masks, and their confusion by angle."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.drawing.style import hover, legend_below, name_axes, panels
from analysis.drawing.ways import agreeing, lines

_LETTERS = 40  # of all layers' names that fit below a panel; else the ticks are numbers from 0


def masks_by_layer(statistics: pd.DataFrame) -> Figure:
    """Draw the density and the overlap of masks, layer by layer.

    Args:
        statistics: the result of stored.layer_statistics.

    Returns:
        A figure. Left: the fraction of ones in a mask. Right: the fraction of ones that two masks
        have in common. The horizontal bar shows this fraction for independent random masks.
        Vertical lines go from the smallest to the largest value. If there is one mask, the figure
        has only the left panel.
    """
    columns = {"density": "fraction of ones in a mask"}
    if statistics["overlap"].notna().any():
        columns["overlap"] = "fraction of ones that two masks share"
    figure, axes_of = panels(len(columns))
    place = np.arange(len(statistics))
    for axes, (column, title) in zip(axes_of, columns.items(), strict=True):
        mean, low, high = (statistics[f"{column}{end}"] for end in ("", "_low", "_high"))
        ends = np.maximum([mean - low, high - mean], 0)
        drawn = axes.errorbar(place, mean, yerr=ends, fmt="o", capsize=3, label="mean and range")
        hover(
            drawn.lines[0],
            [f"{one.layer}: {getattr(one, column):.4f}" for one in statistics.itertuples()],
        )
        axes.set_xlim(-0.5, len(statistics) - 0.5)
        axes.margins(y=0.3)
        if sum(map(len, statistics["layer"])) <= _LETTERS:
            axes.set_xticks(place, statistics["layer"])
        name_axes(axes, "layer" if len(place) > 1 else "", "fraction", title)
    if "overlap" in columns:
        axes_of[1].plot(place, statistics["chance"], "k_", ms=22, label="by chance")
    legend_below(figure)
    return figure


def rotations_confused(evaluations: pd.DataFrame, angles: np.ndarray) -> Figure:
    """Draw the task accuracy of rotations against the angle to the nearest other stored task.

    If inference confuses tasks with similar angles, the figure shows a low task accuracy for these
    tasks.

    Args:
        evaluations: rows of the table `evaluations`.
        angles: the angle of each task in degrees. The index is the task number.
    """
    figure, [axes] = panels(1)
    own = evaluations[(evaluations["num_distractors"] == 0) & (evaluations["num_tasks"] > 1)]
    for way, of_way in agreeing(lines(own), ["task_accuracy"]):
        for k, rows in of_way.groupby("num_tasks"):
            nearest, label = nearest_angles(angles[:k])[rows["task_id"]], f"{way}, {k} masks"
            axes.plot(
                nearest, rows["task_accuracy"], "o", ms=5, alpha=0.5, label=label, rasterized=True
            )
    axes.set(ylim=(-0.02, 1.02), xscale="log")
    name_axes(axes, "degrees to the nearest other task", "task accuracy", "similar rotations")
    legend_below(figure)
    return figure


def nearest_angles(angles: np.ndarray) -> np.ndarray:
    """Compute the distance in degrees from each angle to the nearest other angle, on a circle.

    Args:
        angles: two or more angles in degrees.
    """
    order = np.argsort(angles % 360)
    turned = angles[order] % 360
    gaps = np.diff(turned, append=turned[0] + 360)
    nearest = np.empty(len(angles))
    nearest[order] = np.minimum(gaps, np.roll(gaps, 1))
    return nearest
