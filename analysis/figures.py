"""Figures of a run: one function a figure, each from a table to a matplotlib Figure.

python -m analysis.figures runs/mnist5k-permuted-32 accuracy.png
python -m analysis.figures runs/units recall.png --figure recall_by_masks
"""

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.load import load


def _label(algorithm: str, objective: str | None, images: str, distracted: bool) -> str:
    by = f"{algorithm} {objective}" if isinstance(objective, str) else algorithm
    return f"{by}{images}{', with untrained masks' if distracted else ''}"


def accuracy_by_masks(evaluations: pd.DataFrame) -> Figure:
    """Accuracy and task accuracy against the number of masks in the superposition.

    Args:
        evaluations: rows of the table `evaluations`.

    Returns:
        Left: accuracy with the task given, and with the task inferred (a wrong task
        counts 0). Right: the fraction of batches whose task was inferred right.
        Means over tasks; bars are 95 % of a normal about the mean.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    # Untrained masks are another kind of crowd: a point beside the line, not on it.
    distracted = (evaluations["num_distractors"] > 0).rename("distracted")
    by = ["algorithm", "objective", "num_images", distracted]
    differ = evaluations["num_images"].nunique() > 1
    for (algorithm, objective, num_images, *rest), rows in evaluations.groupby(by, dropna=False):
        images = f", images: {num_images}" if differ else ""
        label = _label(algorithm, objective, images, *rest)
        for axes, column in ((left, "accuracy_gnu"), (right, "task_accuracy")):
            stats = rows.groupby("num_tasks")[column].agg(["mean", "sem"]).fillna(0)
            axes.errorbar(
                stats.index, stats["mean"], yerr=1.96 * stats["sem"], marker="o", ms=4, label=label
            )
    given = evaluations[~distracted].groupby("num_tasks")["accuracy_gg"].mean()
    left.plot(given.index, given, "k--", label="task given (GG)")
    left.set(ylabel="accuracy", title="labels right")
    right.set(ylabel="task accuracy", title="tasks inferred right")
    for axes in (left, right):
        axes.set(xlabel="masks in the superposition", xscale="log")
        axes.grid(alpha=0.3)
    # A flat line near 1 should look like one, not like noise blown up to fill the frame.
    left.set_ylim(min(0.8, evaluations["accuracy_gnu"].min() - 0.02), 1.005)
    right.set_ylim(min(0.8, evaluations["task_accuracy"].min() - 0.02), 1.005)
    left.legend(fontsize="small")
    return figure


def recall_by_masks(reservoir: pd.DataFrame) -> Figure:
    """Masks recalled to the bit, and bytes, against the number of masks in a reservoir.

    Args:
        reservoir: rows of the table `reservoir`.

    Returns:
        Left: the fraction of cues from which the very mask came, a colour a reservoir, solid
        from flipped bits, dash-dotted from erased ones, dashed from data; bands 95 % by Wilson;
        dotted, the capacity of the rule by theory. Cues that were recalled by several commands
        count together. Right: bytes of each reservoir, and, dashed, of the same masks packed.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    by_rule = reservoir.sort_values("num_tasks").groupby(["rule", "dim", "num_blocks"])
    reservoirs = [_reservoir(*key) for key, _ in by_rule]
    for color, (_, of_rule) in enumerate(by_rule):
        by_cue = of_rule.groupby(["cue", of_rule["share"].fillna(0)])
        for (cue, share), rows in by_cue:
            exact = (rows["exact_recall"] * rows["num_cues"]).groupby(rows["num_tasks"]).sum()
            counts = rows.groupby("num_tasks")["num_cues"].sum()
            low, high = _wilson(exact / counts, counts)
            label = f"{reservoirs[color]}, {cue}" + (f" {share:.0%}" if share else "")
            style = {"data": "--", "erased": "-."}.get(cue, "-")
            left.plot(exact.index, exact / counts, f"C{color}o{style}", ms=4, label=label)
            left.fill_between(exact.index, low, high, color=f"C{color}", alpha=0.12)
        capacity = of_rule["capacity"].iloc[0]
        if pd.notna(capacity):
            left.axvline(capacity, color=f"C{color}", ls=":", lw=1)
        size = of_rule.groupby("num_tasks")["reservoir_bytes"].first()
        right.plot(size.index, size, f"C{color}o-", ms=4, label=reservoirs[color])
    packed = reservoir.groupby("num_tasks")["store_bytes"].first()
    right.plot(packed.index, packed, "k--", label="the masks, packed")
    left.set(
        ylabel="masks recalled to the bit",
        ylim=(-0.02, 1.05),
        title="dotted: capacity by theory, from cues without an error",
    )
    right.set(ylabel="bytes", yscale="log")
    for axes in (left, right):
        axes.set(xlabel="masks stored", xscale="log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure


def _reservoir(rule: str, dim: int, num_blocks: int) -> str:
    return f"{rule}, {dim} bits" if num_blocks == 1 else f"{rule}, {num_blocks} of {dim} bits"


def _wilson(fractions: pd.Series, counts: pd.Series) -> tuple[pd.Series, pd.Series]:
    """95 % intervals of fractions of counts."""
    z = 1.96
    middle = (fractions + z**2 / (2 * counts)) / (1 + z**2 / counts)
    spread = fractions * (1 - fractions) / counts + z**2 / (4 * counts**2)
    half = z * spread**0.5 / (1 + z**2 / counts)
    return middle - half, middle + half


FIGURES = {
    "accuracy_by_masks": (accuracy_by_masks, "evaluations"),
    "recall_by_masks": (recall_by_masks, "reservoir"),
}


def main() -> None:
    """Draw one figure of a run into a file."""
    parser = argparse.ArgumentParser(description="Draw a figure of a run.")
    parser.add_argument("run_dir", type=Path, help="a run directory")
    parser.add_argument("file", type=Path, help="where to: a name ending in .png or .svg")
    parser.add_argument("--figure", choices=FIGURES, default="accuracy_by_masks")
    arguments = parser.parse_args()
    draw, table = FIGURES[arguments.figure]
    draw(load(arguments.run_dir, table).to_pandas()).savefig(arguments.file, dpi=120)


if __name__ == "__main__":
    main()
