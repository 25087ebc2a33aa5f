"""The table that ends a run on the screen: what was inferred, how well, at what cost."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from harness.places.places import Place, each
from harness.plan.units import COMPARED_PER_EVALUATION, TASKS_PER_EVALUATION
from harness.tables.files import read_table_file, read_tables, table_files
from harness.tables.schemas import EVALUATIONS, FAILURES, RESERVOIR, TASKS

_CAPTION = (
    "n inferences among k masks (+ untrained ones), in ms each; task: the fraction that named the "
    "right one. Accuracy of labels: GG the task given; GNs the task inferred; GNu the same, a "
    "batch of a wrong task counted as 0."
)
_CAPTIONS = {
    "bits": " bits: the share of the masks' bits that a gradient read.",
    "agree": (
        f" agree: answers equal to the exact one-shot's, of {COMPARED_PER_EVALUATION} in every "
        f"{TASKS_PER_EVALUATION} tasks."
    ),
}

_FAILURES_SHOWN = 5

_RECALL_CAPTION = (
    "n masks recalled among k. exact: the fraction recalled to the bit; bits: bits that are right; "
    "label: accuracy of labels by the masks recalled, GG by the true ones. MB of the reservoir and "
    "of the k rows, packed; ms a recall."
)


def summarise(evaluations: pa.Table) -> pa.Table:
    """Mean over tasks of each checkpoint, algorithm and objective, and how many inferences.

    Args:
        evaluations: rows of the table `evaluations`.

    Returns:
        columns as there, `_mean` or `_sum` behind their names; an agreement is null where no
        row has one.
    """
    means = (
        *("task_accuracy", "accuracy_gg", "accuracy_gns", "accuracy_gnu"),
        *("seconds_per_inference", "bits_read_fraction", "agreement"),
    )
    keys = ["num_tasks", "num_distractors", "algorithm", "objective"]
    grouped = evaluations.group_by(keys).aggregate(
        [*((name, "mean") for name in means), ("num_batches", "sum")]
    )
    return grouped.sort_by([(key, "ascending") for key in keys])


def _table(rows: Sequence[dict[str, Any]], title: str, extra: Sequence[str]) -> Table:
    """Rows of a summary for the screen.

    Args:
        rows: of `summarise`.
        title: above the table.
        extra: of `bits` and `agree`, the columns to have.
    """
    table = Table(
        title=title,
        title_justify="left",
        caption=_CAPTION + "".join(_CAPTIONS[name] for name in extra),
        caption_justify="left",
        # No lines between columns, and one blank less: it fits a terminal of 80.
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("k", justify="right", no_wrap=True)
    table.add_column("inferred by")  # a long name breaks before its objective
    for name in ("n", "task", "GG", "GNs", "GNu", *extra, "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        extras = {"bits": row["bits_read_fraction_mean"], "agree": row["agreement_mean"]}
        distractors = row["num_distractors"]
        table.add_row(
            f"{row['num_tasks'] - distractors}" + (f"+{distractors}" if distractors else ""),
            row["algorithm"] + (f" {row['objective']}" if row["objective"] else ""),
            str(row["num_batches_sum"]),
            *(
                f"{row[f'{name}_mean']:.4f}"
                for name in ("task_accuracy", "accuracy_gg", "accuracy_gns", "accuracy_gnu")
            ),
            *("" if extras[name] is None else f"{extras[name]:.3f}" for name in extra),
            f"{1000 * row['seconds_per_inference_mean']:.2f}",
        )
    return table


def _fitting_table(console: Console, rows: Sequence[dict[str, Any]], title: str) -> Table:
    """With the columns that say something here, as far as the screen is wide enough."""
    extra = []
    if any(row["agreement_mean"] is not None for row in rows):
        extra.append("agree")
    if any(row["bits_read_fraction_mean"] != 1 for row in rows):
        extra.append("bits")
    while extra:
        table = _table(rows, title, extra)
        unlimited = console.options.update(max_width=10 * console.width)
        if Measurement.get(console, unlimited, table).maximum <= console.width:
            return table
        extra.pop()
    return _table(rows, title, [])


def _recall_table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Rows of the table `reservoir` for the screen."""
    table = Table(
        title=title,
        title_justify="left",
        caption=_RECALL_CAPTION,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )
    for name in ("k", "rule", "cue", "n", "exact", "bits", "label", "GG", "MB", "rows", "ms"):
        justify: Any = "left" if name in ("rule", "cue") else "right"
        table.add_column(name, justify=justify, no_wrap=name != "rule")
    for row in rows:
        share = "" if row["share"] is None else f" {row['share']:.0%}"
        table.add_row(
            str(row["num_tasks"]),
            row["rule"],
            row["cue"] + share,
            str(row["num_cues"]),
            *(
                f"{row[name]:.3f}"
                for name in ("exact_recall", "bit_accuracy", "accuracy", "accuracy_gg")
            ),
            f"{row['reservoir_bytes'] / 1e6:.3g}",
            f"{row['store_bytes'] / 1e6:.2g}",
            f"{1000 * row['seconds']:.1f}",
        )
    return table


def print_summary(console: Console, directory: Place, files: Sequence[Place] | None = None) -> None:
    """Print what a run holds and where it lies.

    Args:
        console: where to.
        directory: of the run.
        files: of the tables `evaluations` and `reservoir` to summarise; None: all.
    """
    tasks = read_tables(directory / "log", TASKS, ["accuracy", "train_seconds"])
    rows = summarise(_rows(directory / "evaluations", EVALUATIONS, files)).to_pylist()
    if rows:
        console.print(_fitting_table(console, rows, f"{len(tasks)} masks"))
    order = [(name, "ascending") for name in ("num_tasks", "rule", "cue")]
    recalled = _rows(directory / "reservoir", RESERVOIR, files).sort_by(order).to_pylist()
    if recalled:
        console.print(_recall_table(recalled, f"{len(tasks)} masks, recalled from a reservoir"))
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
    failures = read_tables(directory / "failures", FAILURES)
    for row in failures.slice(0, _FAILURES_SHOWN).to_pylist():
        console.print(
            f"set aside after {row['tries']} tries: task {row['task_id']} of {row['unit']}: "
            f"{row['error']}",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    if len(failures) > _FAILURES_SHOWN:
        console.print(f"and {len(failures) - _FAILURES_SHOWN} more in the table failures")
    console.print(
        f"masks, tables and configuration: {directory}",
        soft_wrap=True,
        highlight=False,
        markup=False,  # a folder's name may have [brackets]
    )


def _rows(folder: Place, schema: pa.Schema, files: Sequence[Place] | None) -> pa.Table:
    """Rows of one table: those of the files that lie in its folder, or all."""
    chosen = table_files(folder) if files is None else [f for f in files if f.parent == folder]
    tables = each(lambda path: read_table_file(path, schema), chosen, folder)
    return pa.concat_tables([schema.empty_table(), *tables])
