"""Draw the trials of a search as parallel coordinates: a line for each trial through its values.

The axes lie below each other, so that a narrow page has space for any number of options.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from analysis.drawing.style import GROUND, SEQUENCE, SIZE, cut, hover, panels
from analysis.search import FINISHED, Option, written

MOST_LINES = 300  # with more lines, no line can be followed
_ROW_INCHES = 0.8  # height of an axis with its texts
_BELOW, _ABOVE = 0.1, 0.08  # distances of the texts from an axis, as fractions of its height
_MOST_NAMES = 6  # of an axis with a list of choices; more would overlap


@dataclass(frozen=True)
class _Scale:
    """An axis: its name, the places of the trials on it, and its texts with their places.

    Places go from 0, the left end, to 1.
    """

    name: str
    places: np.ndarray
    texts: Sequence[tuple[float, str]]


def inches_of(num_options: int) -> float:
    """Return the height of the panel in inches."""
    return _ROW_INCHES * (num_options + 1) + 0.1


def parallel_coordinates(found: pd.DataFrame, options: Sequence[Option], metric: str) -> Figure:
    """Draw a line for each trial through its score and its values of the options.

    Args:
        found: the result of analysis.search.scored, at least one row. If there are more than 300
            trials, only the best 300 are drawn.
        options: the searched options.
        metric: name of the score.

    Returns:
        A figure with one panel. The first axis is the score, and the others are the options. Lines
        have one of five colours by their scores. The best finished trial has its own colour.
    """
    figure, [axes] = panels(1, height=inches_of(len(options)))
    drawn = found.nlargest(MOST_LINES, "score").sort_values("score", ignore_index=True)
    scales = [_of_numbers(metric, drawn["score"].round(4), is_log=False)]
    scales += [_scale(option, drawn[option.key]) for option in options]
    places = np.column_stack([scale.places for scale in scales])
    told = [_told(row, options, metric) for row in drawn.to_dict("records")]
    finished = drawn[drawn["status"] == FINISHED]
    best = [] if finished.empty else [finished.sort_values("trial")["score"].idxmax()]
    for rows, color, label in _groups(drawn["score"]):
        chosen = [row for row in rows if row not in best]
        if chosen:
            _draw_lines(axes, places[chosen], color, 1.4, [told[row] for row in chosen])
            axes.plot([], [], color=color, label=label)
    if best:
        _draw_lines(axes, places[best], "C1", 2.4, [told[row] for row in best])
        axes.plot([], [], "C1", label="best finished trial")
    for row, scale in enumerate(scales):
        _draw_axis(axes, row, scale)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(scales) - 0.55, -0.45))
    axes.set_axis_off()
    return figure


def _scale(option: Option, values: pd.Series) -> _Scale:
    if option.is_range:
        return _of_numbers(option.label, values, is_log=option.is_log)
    names = sorted(values.unique())
    middles = {name: (i + 0.5) / len(names) for i, name in enumerate(names)}
    texts = [(at, cut(written(name), 0.92 / len(names))) for name, at in middles.items()]
    if len(names) > _MOST_NAMES:
        texts = [(middles[name], cut(written(name), 0.4)) for name in (names[0], names[-1])]
    return _Scale(option.label, values.map(middles).to_numpy(float), texts)


def _of_numbers(name: str, values: pd.Series, *, is_log: bool) -> _Scale:
    numbers = values.to_numpy(float)
    at = np.log(numbers) if is_log else numbers
    low, high = at.min(), at.max()
    if low == high:
        return _Scale(name, np.full(len(at), 0.5), [(0.5, written(numbers[0]))])
    ends = [(0.0, written(values.min())), (1.0, written(values.max()))]
    return _Scale(f"{name} (log)" if is_log else name, (at - low) / (high - low), ends)


def _groups(scores: pd.Series) -> Iterator[tuple[np.ndarray, str, str]]:
    """Divide trials into groups of equal size by their scores.

    Args:
        scores: the scores, sorted.

    Yields:
        For each group, the positions of its trials, its colour, and its label.
    """
    count = max(1, min(len(SEQUENCE), len(scores) // 2))
    for rows, color in zip(
        np.array_split(np.arange(len(scores)), count), SEQUENCE[-count:], strict=True
    ):
        # Groups of trials without success have the same scores. Their ranks tell them apart.
        ranks = f"ranks {len(scores) - rows[-1]} to {len(scores) - rows[0]}"
        yield rows, color, f"{ranks}: score {scores[rows[0]]:.4f} to {scores[rows[-1]]:.4f}"


def _draw_lines(
    axes: Axes, places: np.ndarray, color: str, width: float, told: Sequence[str]
) -> None:
    rows = np.broadcast_to(np.arange(places.shape[1]), places.shape)
    lines = LineCollection(
        list(np.stack([places, rows], axis=-1)), colors=color, linewidths=width, alpha=0.9
    )
    hover(lines, told)
    axes.add_collection(lines)


def _draw_axis(axes: Axes, row: int, scale: _Scale) -> None:
    behind = {"facecolor": GROUND, "edgecolor": "none", "pad": 0.5, "alpha": 0.75}
    axes.plot([0, 1], [row, row], color="black", lw=0.8)
    name = cut(scale.name)
    axes.text(0, row - _ABOVE, name, va="bottom", weight="bold", fontsize=SIZE, bbox=behind)
    for at, text in scale.texts:
        side = {0.0: "left", 1.0: "right"}.get(at, "center")
        axes.text(at, row + _BELOW, text, ha=side, va="top", fontsize=SIZE, bbox=behind)


def _told(row: dict[str, object], options: Sequence[Option], metric: str) -> str:
    values = [f"{option.label} {written(row[option.key])}" for option in options]
    return "; ".join(
        [f"trial {row['trial']}, {row['status']}: {metric} {row['score']:.4f}", *values]
    )
