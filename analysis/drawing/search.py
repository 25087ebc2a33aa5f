"""Draw a search: the scores of the trials in their order, and the importance of the options."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.drawing.style import SIZE, cut, hover, name_axes, panels
from analysis.drawing.training import MOST_HOVERS
from analysis.search import FINISHED, Option


def history(found: pd.DataFrame, metric: str) -> Figure:
    """Draw the score of each trial in the order in which the trials ended.

    Args:
        found: the result of analysis.search.scored.
        metric: name of the score.

    Returns:
        A figure with one panel. The line is the best score of a finished trial so far.
    """
    figure, [axes] = panels(1)
    places = np.arange(1, len(found) + 1)
    crowded = len(found) > MOST_HOVERS
    for is_finished, style, label in ((True, "C0o", "finished"), (False, "C6o", "stopped early")):
        chosen = ((found["status"] == FINISHED) == is_finished).to_numpy()
        if chosen.any():
            [points] = axes.plot(
                *(places[chosen], found["score"][chosen], style),
                ms=5,
                label=label,
                rasterized=crowded,
                markerfacecolor=None if is_finished else "none",
            )
            if not crowded:
                hover(points, [_named(row, metric) for row in found[chosen].itertuples()])
    if found["best"].notna().any():
        axes.step(places, found["best"], "C1-", where="post", label="best finished trial so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.1)
    name_axes(axes, "trials that have ended", metric, "score of each trial")
    return figure


def _named(row: Any, metric: str) -> str:
    return f"trial {row.trial}: {metric} {row.score:.4f}, {row.steps} steps"


def bars_inches(num_options: int) -> float:
    """Return the height of the panel of importance_bars in inches."""
    return 0.55 * num_options + 1.0


def importance_bars(amounts: pd.Series, options: Sequence[Option]) -> Figure:
    """Draw the importance of each option as a bar.

    Args:
        amounts: the result of analysis.search.importance.
        options: the searched options.

    Returns:
        A figure with one panel. Each bar has its option above it, and its value at its end.
    """
    figure, [axes] = panels(1, height=bars_inches(len(amounts)))
    labels = {option.key: option.label for option in options}
    for row, (key, amount) in enumerate(amounts.items()):
        axes.barh(row, amount, height=0.4, color="C0")
        axes.text(0.01, row - 0.24, cut(labels[str(key)]), va="bottom", fontsize=SIZE)
        axes.text(amount + 0.01, row, f"{amount:.2f}", va="center", fontsize=SIZE)
    axes.set(xlim=(0, 1.12), ylim=(len(amounts) - 0.6, -0.8), yticks=[])
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    name_axes(axes, "fraction of the explained variance", "", "importance of each option")
    return figure
