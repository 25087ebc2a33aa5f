"""Figures of a run: one function a figure, each from a table to a matplotlib Figure.

python -m analysis.figures runs/mnist5k-permuted-32 accuracy.png
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


def main() -> None:
    """Draw a run's accuracy into a file."""
    parser = argparse.ArgumentParser(description="Draw a run's accuracy against its masks.")
    parser.add_argument("run_dir", type=Path, help="a run directory")
    parser.add_argument("file", type=Path, help="where to: a name ending in .png or .svg")
    arguments = parser.parse_args()
    figure = accuracy_by_masks(load(arguments.run_dir, "evaluations").to_pandas())
    figure.savefig(arguments.file, dpi=120)


if __name__ == "__main__":
    main()
