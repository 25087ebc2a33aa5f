"""Draw how many masks reservoirs recall, in how many bytes and after how many sweeps."""

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
    tick_checkpoints,
    told,
)
from analysis.summary import (
    RECALL_SETTINGS,
    RECALL_WAYS,
    RESERVOIRS,
    largest_recalls,
    told_apart,
    wilson,
)

STORED = "masks stored"
_STYLES = {"flipped": "o-", "erased": "s-.", "data": "^--"}  # cue -> markers and lines


def recall_by_masks(reservoir: pd.DataFrame) -> Figure:
    """Draw the fraction of recalled masks, and the bytes, against the number of stored masks.

    Args:
        reservoir: rows of the table `reservoir`.

    Returns:
        A figure. Left: the fraction of cues whose mask was recalled without an error. Each
        reservoir has a colour. Lines are solid with circles for cues with flipped bits, dash-dotted
        with squares for cues with erased bits, and dashed with triangles for cues from data. Bands
        are 95 % intervals by Wilson. A dotted vertical line is the number of masks that a reservoir
        can hold in theory. If masks were recalled twice with the same settings, the larger sample
        is drawn. Right: the bytes of each reservoir. The dashed line shows the bytes of the same
        masks as packed bits.
    """
    figure, (left, right) = panels(2)
    by_rule = list(
        largest_recalls(reservoir).sort_values("num_tasks").groupby(RESERVOIRS, dropna=False)
    )
    reservoirs = _reservoirs(pd.DataFrame([key for key, _ in by_rule], columns=RESERVOIRS))
    sizes = reservoir["num_tasks"].unique()
    for number, (_, of_rule) in enumerate(by_rule):
        _draw_recalls(left, of_rule, f"C{number}", reservoirs[number])
        capacity = of_rule["capacity"].iloc[0]
        # A theory that promises far more masks than were stored would squeeze all points.
        if pd.notna(capacity) and capacity <= 4 * sizes.max():
            left.axvline(capacity, color=f"C{number}", ls=":", lw=1)
        size = of_rule.groupby("num_tasks")["reservoir_bytes"].first()
        right.plot(size.index, size, f"C{number}o-", ms=5, label=reservoirs[number])
    packed = reservoir.groupby("num_tasks")["store_bytes"].first()
    right.plot(packed.index, packed, "k--", label="the masks, packed")
    left.set_ylim(-0.02, 1.05)
    right.set_yscale("log")
    for axes in (left, right):
        tick_checkpoints(axes, sizes)
    name_axes(left, STORED, "fraction of masks", "masks recalled without an error")
    name_axes(right, STORED, "bytes", "size")
    legend_below(figure)
    return figure


def _draw_recalls(axes: Axes, of_rule: pd.DataFrame, color: str, name: str) -> None:
    """Draw a line with a band for each cue and each set of settings of one reservoir."""
    by_way = list(of_rule.groupby(["cue", *RECALL_SETTINGS], dropna=False))
    ways = pd.DataFrame([key for key, _ in by_way], columns=["cue", *RECALL_SETTINGS])
    apart = told_apart(ways, ["most_steps", "batch_size"])
    for (_, rows), way, settings in zip(by_way, ways.itertuples(), apart, strict=True):
        low, high = wilson(rows["exact_recall"], rows["num_cues"])
        share = "" if np.isnan(way.share) else f" {way.share:.0%}"
        label = f"{name}, {way.cue}{share}{settings}"
        style = _STYLES.get(way.cue, "o-")
        [line] = axes.plot(
            rows["num_tasks"], rows["exact_recall"], style, color=color, ms=5, label=label
        )
        axes.fill_between(rows["num_tasks"], low, high, color=color, alpha=0.12)
        points = zip(rows["num_tasks"], rows["exact_recall"], low, high, strict=True)
        hover(line, [told(label, k, "masks", *values) for k, *values in points])


def sweeps_by_masks(reservoir: pd.DataFrame) -> Figure:
    """Draw the number of sweeps of a recall against the number of stored masks.

    Args:
        reservoir: rows of the table `reservoir`.

    Returns:
        A figure with one line for each reservoir, kind of cue and settings. Points are means over
        the cues. A sweep counts if it changed a bit.
    """
    figure, [axes] = panels(1)
    ordered = largest_recalls(reservoir).sort_values("num_tasks")
    found = list(ordered.groupby(RECALL_WAYS, dropna=False))
    ways = pd.DataFrame([key for key, _ in found], columns=RECALL_WAYS)
    names, apart = _reservoirs(ways), told_apart(ways, RECALL_SETTINGS)
    labels = [
        f"{name}, {cue}{settings}"
        for name, cue, settings in zip(names, ways["cue"], apart, strict=True)
    ]
    for number, ((_, rows), label) in enumerate(zip(found, labels, strict=True)):
        style = line_style(number)
        [line] = axes.plot(rows["num_tasks"], rows["steps"], style, ms=5, label=label)
        points = zip(rows["num_tasks"], rows["steps"], strict=True)
        hover(line, [f"{label}, {k:g} masks: {steps:.3g} sweeps" for k, steps in points])
    tick_checkpoints(axes, reservoir["num_tasks"])
    axes.set_ylim(bottom=0)
    name_axes(axes, STORED, "sweeps", "sweeps until recall ends")
    legend_below(figure)
    return figure


def _reservoirs(reservoirs: pd.DataFrame) -> list[str]:
    """Make the legend's text for each reservoir.

    Args:
        reservoirs: one row per reservoir, with the columns in RESERVOIRS.
    """
    return [
        f"{one.rule}, {one.dim} bits"
        if one.num_blocks == 1
        else f"{one.rule}, {one.num_blocks} of {one.dim} bits"
        for one in reservoirs.itertuples()
    ]
