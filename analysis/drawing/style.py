"""The look that all figures share: size of a panel, ticks, legends and texts for the pointer.

A figure has one or more panels side by side. Text has one size. A legend stands outside the panels.
"""

import json
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from numpy.typing import ArrayLike

PANEL_INCHES = (4.8, 3.4)  # width and height
SIZE = "medium"  # of all text
HOVER = "hover:"  # an artist's id begins with this text if its points have texts of their own
LETTER = 0.024  # width of a letter, as a fraction of a panel's width
# Colours of an amount, from small to large, and the colour of the page behind a figure, on a light
# page. analysis/templates/style.css has the same colours, and others for dark pages.
SEQUENCE = ("#b4c4d4", "#8eb0cf", "#6699c9", "#3b7db8", "#125d9c")
GROUND = "#fefeff"
_LABEL_WIDTH = 44  # letters in a line of a legend below the panels
_LINE_INCHES = 0.19  # height of a line of a legend


def panels(count: int, *, height: float = PANEL_INCHES[1]) -> tuple[Figure, list[Axes]]:
    """Make a figure with panels side by side.

    Args:
        count: number of panels.
        height: height of the figure in inches.
    """
    figure = Figure(figsize=(PANEL_INCHES[0] * count, height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def line_style(number: int) -> str:
    """Return the style of a figure's line: lines differ in their markers, not only in colours."""
    return f"{marker(number)}-"


def marker(number: int) -> str:
    """Return the marker of a figure's line or group of points."""
    return "os^Dv<>"[number % 7]


def name_axes(axes: Axes, x: str, y: str, title: str = "") -> None:
    """Write the names of a panel's axes and its title, and draw a grid."""
    axes.set(xlabel=x, ylabel=y)
    axes.set_title(title, fontsize=SIZE)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)


def legend_entries(figure: Figure) -> dict[str, Any]:
    """Return the labels of a figure with their handles. A label of two panels appears once."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return found


def legend_below(figure: Figure) -> None:
    """Put one legend for all panels below them. The figure grows by the height of the legend."""
    found = legend_entries(figure)
    labels = [textwrap.fill(label, _LABEL_WIDTH) for label in found]
    width, height = figure.get_size_inches()
    columns = max(1, round(width / PANEL_INCHES[0]))
    num_lines = sum(label.count("\n") + 1 for label in labels)
    figure.set_size_inches(width, height + _LINE_INCHES * (num_lines / columns + 1))
    figure.legend(
        list(found.values()), labels, loc="outside lower center", ncols=columns, fontsize=SIZE
    )


def tick_checkpoints(axes: Axes, sizes: Iterable[float], scale: str | None = None) -> None:
    """Draw a tick at each checkpoint, and write the numbers for which there is space.

    Args:
        axes: the panel, whose horizontal axis is the number of masks, or another size.
        sizes: the sizes at the checkpoints, positive.
        scale: "linear" or "log"; None: the scale on which the checkpoints lie further apart.
    """
    ticks = np.unique(np.fromiter(sizes, dtype=float))
    scale = scale or _wider_scale(ticks)
    axes.set_xscale(scale)
    axes.set_xticks(ticks, _fitting_labels(_places(ticks, scale), ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    if len(ticks) == 1 and scale == "linear":
        axes.set_xlim(ticks[0] - 1, ticks[0] + 1)  # see place_beside


def place_beside(sizes: ArrayLike, number: int, count: int) -> np.ndarray:
    """Return where to draw the points of a line. At a single checkpoint, lines stand side by side.

    Args:
        sizes: numbers of masks of the line's points.
        number: number of the line, from 0.
        count: number of lines.
    """
    places = np.asarray(sizes, dtype=float)
    return places + 1.4 * ((number + 0.5) / count - 0.5) if len(places) == 1 else places


def _places(ticks: np.ndarray, scale: str) -> np.ndarray:
    """Return where ticks lie between the first tick (0) and the last tick (1)."""
    values = np.log(ticks) if scale == "log" else ticks
    places: np.ndarray = (values - values[0]) / max(values[-1] - values[0], 1e-12)
    return places


def _wider_scale(ticks: np.ndarray) -> str:
    if len(ticks) < 3:
        return "linear"
    gaps = {scale: np.diff(_places(ticks, scale)).min() for scale in ("linear", "log")}
    return max(gaps, key=lambda scale: float(gaps[scale]))


def _fitting_labels(places: np.ndarray, ticks: np.ndarray) -> list[str]:
    """Return a label for each tick; "" if the label would touch the next label to the right."""
    labels, left_end = [""] * len(ticks), np.inf
    for i in range(len(ticks) - 1, -1, -1):
        text = f"{ticks[i]:g}" if ticks[i] < 1e6 else f"{ticks[i]:.0e}"
        half = LETTER * len(text) / 2
        if places[i] + half < left_end:
            labels[i], left_end = text, places[i] - half - LETTER
    return labels


def cut(text: str, width: float = 0.96) -> str:
    """Cut a text that is wider than a part of a panel.

    Args:
        text: the text.
        width: width of the part, as a fraction of the panel's width.
    """
    most = max(2, int(width / LETTER))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def hover(artist: Artist, texts: Sequence[str]) -> None:
    """Give each point of an artist a text, which a browser shows if the pointer is on the point.

    Args:
        artist: a line or a collection. A line without markers has no points, so it gets no texts.
        texts: one text per point. Every point must be drawn, so no coordinate may be NaN.
    """
    if isinstance(artist, Line2D) and artist.get_marker() == "None":
        return
    artist.set_gid(HOVER + json.dumps(list(texts)))


def told(label: str, x: float, of_what: str, mean: float, low: float, high: float) -> str:
    """Make the text of a point: its line, its place, its mean, and an interval unless it is NaN."""
    interval = f" ({low:.4f} to {high:.4f})" if np.isfinite([low, high]).all() else ""
    return f"{label}, {x:g} {of_what}: {mean:.4f}{interval}"
