"""The table that ends a run on the screen: what was inferred, how well, at what cost."""

from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from harness.results import EVALUATIONS, TASKS, read_tables


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
    table = Table(title=f"{len(tasks)} masks", title_justify="left")
    table.add_column("among k", justify="right")
    table.add_column("inferred by")
    for name in ("inferences", "task acc.", "GG", "GNs", "GNu", "ms/inference"):
        table.add_column(name, justify="right")
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
    console.print(table)
    if len(tasks):
        accuracies = tasks["accuracy"].to_numpy()
        console.print(
            f"accuracy of a mask on all test images, task given: mean {accuracies.mean():.4f}, "
            f"lowest {accuracies.min():.4f}; {tasks['train_seconds'].to_numpy().mean():.2f} s of "
            "one actor a mask",
            soft_wrap=True,
        )
    console.print(f"masks, tables and configuration: {directory}", soft_wrap=True, highlight=False)
