"""The section about task inference: accuracies, wrongly inferred tasks, and forgetting."""

from pathlib import Path

import pandas as pd

from analysis import stored, summary
from analysis.continual import continual_measures
from analysis.drawing.accuracy import accuracy_by_masks, by_objective, wrong_tasks
from analysis.drawing.masks import rotations_confused
from analysis.drawing.ways import agreeing, lines
from analysis.pages.content import Details, Part, Section, Table, Text, interval, number, table
from analysis.pages.svg import drawing
from analysis.sections.cells import way_columns


def inference(evaluations: pd.DataFrame, found: pd.DataFrame, run_dir: str | Path) -> Section:
    """Describe how well tasks are inferred.

    Args:
        evaluations: rows of the table `evaluations`.
        found: the result of summary.evaluation_summary.
        run_dir: the run directory.
    """
    own = evaluations[evaluations["num_distractors"] == 0]
    parts: list[Part] = [
        drawing(
            "Accuracy with the task given (GG) and with the task inferred (GNu), and task accuracy "
            "(the fraction of queries whose task is inferred right), against the number of masks "
            "in the superposition. A tick is a checkpoint. Bars are 95 % intervals of the mean "
            "by bootstrap over tasks. A way of inference has the same colour in all figures.",
            lambda: accuracy_by_masks(evaluations),
            "accuracy",
        ),
        *_wrong(own[own["algorithm"] != summary.GIVEN]),
    ]
    angles = stored.angles(run_dir)
    if angles is not None and (own["num_tasks"] > 1).any():
        parts.append(
            drawing(
                "Rotations: task accuracy against the angle to the nearest other stored task.",
                lambda: rotations_confused(evaluations, angles),
                "rotations",
            )
        )
    most = found["num_tasks"].max()
    last = found[found["num_tasks"] == most]
    parts.append(_evaluations(last, f"Results for {most} masks."))
    if len(last) < len(found):
        parts.append(_continual(evaluations, last_only=True))
        all_of = [_evaluations(found, ""), _continual(evaluations, last_only=False)]
        parts.append(Details("Results at all checkpoints", all_of))
    return Section("Task inference", parts)


def _wrong(own: pd.DataFrame) -> list[Part]:
    """Draw the fraction of wrong tasks, or say that no task was inferred wrong.

    Args:
        own: rows of the table `evaluations`, without distractors and without the algorithm that is
            given the task.
    """
    if own.empty:
        return []
    counts = {title: _count_wrong(rows) for title, rows in by_objective(own).items()}
    if not any(wrong for wrong, _ in counts.values()):
        return [Text(_no_error(own))]
    drawn = {title: rows for title, rows in by_objective(own).items() if counts[title][0]}
    parts: list[Part] = [
        Text(f"With {title}: 0 wrong of {asked:,} queries.".replace("With without", "Without"))
        for title, (wrong, asked) in counts.items()
        if not wrong
    ]
    if len(agreeing(lines(own), ["task_accuracy"])) > 1:
        alt = "Wrongly inferred tasks, by objective. Bands are 95 % intervals by bootstrap."
        parts.insert(0, drawing(alt, lambda: wrong_tasks(drawn, own), "wrong"))
    return parts


def _count_wrong(rows: pd.DataFrame) -> tuple[int, int]:
    right, asked = summary.num_right(rows)
    return asked - right, asked


def _no_error(own: pd.DataFrame) -> str:
    """Say that no task was inferred wrong, and how sure this is for one way of inference."""
    asked = summary.num_right(own)[1]
    last = own[own["num_tasks"] == own["num_tasks"].max()]
    of_way = int(last.groupby(summary.WAYS, dropna=False)["num_batches"].sum().max())
    _, high = summary.wilson(pd.Series([0.0]), pd.Series([of_way]))
    return (
        f"0 wrong of {asked:,} queries, by all algorithms, objectives and checkpoints. For the "
        f"{of_way:,} queries of one algorithm at the last checkpoint, the 95 % interval of the "
        f"fraction of wrong tasks is 0 to {high.iloc[0]:.4f} (by Wilson, for independent queries)."
    )


def _evaluations(found: pd.DataFrame, told: str) -> Table:
    way, ways, settings = way_columns(found, summary.WAYS)
    has_checkpoints = found["num_tasks"].nunique() > 1
    heads = [*(["masks"] if has_checkpoints else []), *way, "tasks", "task accuracy", "95 %"]
    heads += ["accuracy GG", "accuracy GNs", "accuracy GNu", "95 %", "ms", "bits read"]
    rows = []
    for (_, row), cells_of_way in zip(found.iterrows(), ways, strict=True):
        rows.append(
            [
                *([int(row["num_tasks"])] if has_checkpoints else []),
                *cells_of_way,
                int(row["tasks"]),
                number(row["task_accuracy"]),
                interval(row["task_accuracy_low"], row["task_accuracy_high"]),
                *(number(row[f"accuracy_{name}"]) for name in ("gg", "gns", "gnu")),
                interval(row["accuracy_gnu_low"], row["accuracy_gnu_high"]),
                number(1000 * row["seconds_per_inference"], ".3f"),
                number(row["bits_read_fraction"], ".1%"),
            ]
        )
    caption = (
        f"{told} Means over tasks. 95 %: the interval by bootstrap over tasks. GNs: fraction of "
        "right labels with the inferred task. GNu: the same, but if the inferred task of a query "
        f"is wrong, no label counts as right. ms: median milliseconds per inference. {settings}"
    )
    return table(caption.strip(), heads, rows)


def _continual(evaluations: pd.DataFrame, *, last_only: bool) -> Table:
    """Make the table of the measures of continual learning. Ways that agree are one row."""
    last = evaluations["num_tasks"].max()
    measures = ["average_accuracy", "forgetting", "backward_transfer"]
    rows = [
        [
            int(row["num_tasks"]),
            label,
            *(number(row[name]) for name in measures),
            int(row["earlier_tasks"]),
        ]
        for label, part in agreeing(lines(evaluations), ["accuracy_gnu"])
        for _, row in continual_measures(part).iterrows()
        if row["num_tasks"] == last or not last_only
    ]
    caption = (
        "Measures of continual learning, with the accuracy GNu. Forgetting and backward transfer "
        "are means over the tasks that were also evaluated with fewer masks. With the task given, "
        "both are 0, because a mask never changes."
    )
    heads = ["masks", "inferred by", *(name.replace("_", " ") for name in measures)]
    return table(caption, [*heads, "tasks compared"], rows)
