"""The table that ends a run on the screen: what was inferred, how well, at what cost."""

from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from harness.results import EVALUATIONS, TASKS, read_tables

_CAPTION = (
    "n inferences among k masks, in ms each. Accuracy of labels: GG the task given; GNs the task "
    "inferred; GNu the same, a batch of a wrong task counted as 0."
)


def summarise(evaluations: pa.Table) -> pa.Table:
    """Mean over tasks of each checkpoint, algorithm and objective, and how many inferences.

    Args:
        evaluations: rows of the table `evaluations`.
    """
    means = ("task_accuracy", "accuracy_gg", "accuracy_gns", "accuracy_gnu")
    keys = ["num_tasks", "algorithm", "objective"]
    grouped = evaluations.group_by(keys).aggregate(
        [
            *((name, "mean") for name in means),
            ("seconds_per_inference", "mean"),
            ("num_batches", "sum"),
        ]
    )
    return grouped.sort_by([(key, "ascending") for key in keys])


def print_summary(console: Console, directory: Path) -> None:
    """Print what a run holds and where it lies."""
    tasks = read_tables(directory / "log", TASKS)
    evaluations = read_tables(directory / "evaluations", EVALUATIONS)
    table = Table(
        title=f"{len(tasks)} masks",
        title_justify="left",
        caption=_CAPTION,
        caption_justify="left",
        show_edge=False,  # four columns less: it fits a terminal of 80
        pad_edge=False,
    )
    table.add_column("k", justify="right", no_wrap=True)
    table.add_column("inferred by", no_wrap=True)
    for name in ("n", "task acc.", "GG", "GNs", "GNu", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in summarise(evaluations).to_pylist():
        by = row["algorithm"] + (f" {row['objective']}" if row["objective"] else "")
        table.add_row(
            str(row["num_tasks"]),
            by,
            str(row["num_batches_sum"]),
            *(
                f"{row[f'{name}_mean']:.4f}"
                for name in ("task_accuracy", "accuracy_gg", "accuracy_gns", "accuracy_gnu")
            ),
            f"{1000 * row['seconds_per_inference_mean']:.2f}",
        )
    if len(evaluations):
        console.print(table)
    if len(tasks):
        accuracies = tasks["accuracy"].to_numpy()
        console.print(
            f"{len(tasks)} masks: accuracy on all test images, task given: mean "
            f"{accuracies.mean():.4f}, lowest {accuracies.min():.4f}; "
            f"{tasks['train_seconds'].to_numpy().mean():.2f} s of one actor a mask",
            soft_wrap=True,
        )
    else:
        console.print("0 masks")
    console.print(
        f"masks, tables and configuration: {directory}",
        soft_wrap=True,
        highlight=False,
        markup=False,  # a folder's name may have [brackets]
    )
