"""Draw the time and the mask bytes of an inference against the number of masks."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.drawing.accuracy import MASKS
from analysis.drawing.style import (
    hover,
    legend_below,
    line_style,
    name_axes,
    panels,
    tick_checkpoints,
)
from analysis.drawing.ways import lines, numbering


def time_by_masks(evaluations: pd.DataFrame, row_bytes: int, bandwidth: float) -> Figure:
    """Draw the time and the bytes that an inference takes, against the number of masks.

    Args:
        evaluations: rows of the table `evaluations`.
        row_bytes: bytes of a packed mask.
        bandwidth: bytes per second that can be read from memory.

    Returns:
        A figure. Left: seconds per inference. A line is the median over tasks, and a band goes from
        the lower to the upper quartile. The dashed line is the time to read all packed masks once
        at the speed `bandwidth`. Right: the bytes of masks that one gradient reads. The dashed line
        shows the bytes of all packed masks.
    """
    figure, (left, right) = panels(2)
    own = evaluations[evaluations["num_distractors"] == 0]
    number_of = numbering(own)
    for label, rows in lines(own):
        number = number_of(rows)
        style, color = line_style(number), f"C{number % 10}"
        seconds = rows.groupby("num_tasks")["seconds_per_inference"]
        middle, low, high = seconds.median(), seconds.quantile(0.25), seconds.quantile(0.75)
        [line] = left.plot(middle.index, middle, style, color=color, ms=5, label=label)
        left.fill_between(middle.index, low, high, color=color, alpha=0.15)
        hover(line, [f"{label}, {k:g} masks: {1000 * one:.3g} ms" for k, one in middle.items()])
        read = rows.groupby("num_tasks")["bits_read_fraction"].mean()
        read = read * read.index * row_bytes
        [line] = right.plot(read.index, read, style, color=color, ms=5, label=label)
        hover(line, [f"{label}, {k:g} masks: {one:,.0f} bytes" for k, one in read.items()])
    sizes = np.array(sorted(own["num_tasks"].unique()))
    bound = "k--" if len(sizes) > 1 else "k_"  # one point makes no line
    wall = f"lower bound of a full scan, at {bandwidth / 1e9:.1f} GB/s"
    left.plot(sizes, sizes * row_bytes / bandwidth, bound, label=wall)
    right.plot(sizes, sizes * row_bytes, bound, label="all packed masks")
    for axes in (left, right):
        axes.set_yscale("log")
        tick_checkpoints(axes, sizes, "log")
    name_axes(left, MASKS, "seconds per inference", "time")
    name_axes(right, MASKS, "bytes", "mask bytes that one gradient reads")
    legend_below(figure)
    return figure
