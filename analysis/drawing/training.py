"""Draw the training of a run: masks and accuracies over time, and the work of each actor."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from analysis.drawing.style import hover, name_axes, panels

MOST_HOVERS = 400  # points with texts in one panel; more would make the page large
_MOST_ACTORS = 16  # rows of a timeline with names
_PAUSE = 0.2  # a gap between blocks is cut if it is longer than this fraction of all training
_UNITS = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


def blocks_of(tasks: pd.DataFrame) -> pd.DataFrame:
    """Find the blocks of tasks that trained together, and when they trained.

    Args:
        tasks: rows of the table `tasks`.

    Returns:
        One row per block, sorted by `begin`. `begin` and `end` are seconds since the first block
        began. They leave out pauses, in which no actor trained, for example between two starts of
        a run. `first` and `last` are the task numbers, and `size` is their number. The end is the
        time when the block was measured, and the begin is the end minus the training time.
    """
    grouped = tasks.groupby(["worker", "finished_at"])
    found = grouped.agg(
        first=("task_id", "min"),
        last=("task_id", "max"),
        size=("task_id", "size"),
        seconds=("train_seconds", "sum"),
        accuracy=("accuracy", "mean"),
    ).reset_index()
    end = (found["finished_at"] - found["finished_at"].min()).dt.total_seconds()
    found = found.assign(begin=end - found["seconds"], end=end)
    found = found.sort_values("begin", ignore_index=True)
    cut = _cut_before(found["begin"].to_numpy(), found["end"].to_numpy())
    shift = found["begin"].iloc[0] + cut
    return found.assign(begin=found["begin"] - shift, end=found["end"] - shift, cut=cut)


def _cut_before(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the seconds of pauses before each block. The blocks are sorted by begin."""
    latest = np.maximum.accumulate(end)
    idle = np.maximum(begin[1:] - latest[:-1], 0)
    busy = latest[-1] - begin[0] - idle.sum()
    return np.concatenate([[0.0], np.cumsum(np.where(idle > _PAUSE * busy, idle, 0))])


def training_over_time(tasks: pd.DataFrame) -> Figure:
    """Draw the number of masks, their accuracies and the work of each actor over wall time.

    Args:
        tasks: rows of the table `tasks`.

    Returns:
        A figure with three panels. Left: the number of trained masks. Middle: the mean accuracy of
        each block of masks, at the time when it was measured. Right: a bar for each block, in the
        row of the actor that trained it. Pauses are cut out, see blocks_of.
    """
    blocks = blocks_of(tasks)
    size, unit = next(
        (size, unit) for size, unit in _UNITS if blocks["end"].max() >= size or size == 1
    )
    figure, (left, middle, right) = panels(3)
    ended = blocks.sort_values("end")
    times = ended["end"] / size
    left.step([0, *times], [0, *ended["size"].cumsum()], where="post")
    name_axes(left, unit, "masks", "trained masks")
    crowded = len(blocks) > MOST_HOVERS
    [points] = middle.plot(times, ended["accuracy"], "o", ms=5, alpha=0.7, rasterized=crowded)
    if not crowded:
        hover(points, [_described(one, size, unit) for one in ended.itertuples()])
    middle.margins(y=0.2)
    name_axes(middle, unit, "accuracy, task given", "mean accuracy of each block")
    _draw_timeline(right, blocks, size, unit)
    return figure


def _draw_timeline(axes: Axes, blocks: pd.DataFrame, size: float, unit: str) -> None:
    actors = sorted(blocks["worker"].unique(), key=lambda name: (len(name), name))
    row = {name: number for number, name in enumerate(actors)}
    thickness = min(0.8, 0.25 * len(actors))  # few actors have thin bars
    corners = [
        [
            (b, y - thickness / 2),
            (e, y - thickness / 2),
            (e, y + thickness / 2),
            (b, y + thickness / 2),
        ]
        for b, e, y in zip(
            blocks["begin"] / size, blocks["end"] / size, blocks["worker"].map(row), strict=True
        )
    ]
    crowded = len(blocks) > MOST_HOVERS
    bars = PolyCollection(
        corners,
        facecolor=[f"C{number % 2}" for number in blocks.groupby("worker").cumcount()],
        rasterized=crowded,
    )
    if not crowded:
        hover(bars, [_described(one, size, unit) for one in blocks.itertuples()])
    axes.add_collection(bars)
    axes.set(xlim=(0, max(blocks["end"].max() / size, 1e-9)), ylim=(len(actors) - 0.4, -0.6))
    named = actors if len(actors) <= _MOST_ACTORS else []
    axes.set_yticks(range(len(named)), named)
    name_axes(
        axes,
        unit,
        "",
        f"blocks of {len(actors)} actors" if len(actors) > 1 else "blocks of one actor",
    )


def _described(block: Any, size: float, unit: str) -> str:
    tasks = f"task {block.first}" if block.size == 1 else f"tasks {block.first} to {block.last}"
    return (
        f"{block.worker}, {tasks}: {block.begin / size:.3g} to {block.end / size:.3g} {unit}, mean "
        f"accuracy {block.accuracy:.4f}"
    )
