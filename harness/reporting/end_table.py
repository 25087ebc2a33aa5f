"""Tables on the screen at the end of a run: inference, accuracy and cost."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import pyarrow as pa
from rich import box
from rich.console import Console
from rich.table import Table

from harness.places.places import Place, each
from harness.plan.evaluation import COMPARED_PER_EVALUATION, TASKS_PER_EVALUATION
from harness.plan.ownership import Mistakes
from harness.reporting.display import fits, say
from harness.reporting.recoveries import recovered
from harness.tables.files import read_table_file, read_tables, table_files
from harness.tables.inference import EVALUATIONS
from harness.tables.reservoirs import RECOVERY, RESERVOIR
from harness.tables.schemas import FAILURES, TASKS
from supsup_core.names import GIVEN

_CAPTION = (
    "k: number of masks (+ untrained masks). task: fraction of queries (one per test batch) "
    "with the right task. Accuracy of labels: GG with the given task, GNs with the inferred task, "
    "GNu like GNs, but 0 for a batch whose inferred task is wrong. ms: milliseconds per inference."
)
_CAPTIONS = {
    "bits": " bits: fraction of all mask bits that one gradient reads.",
    "agree": (
        " agree: fraction of inferences with the same result as exact one-shot "
        f"({COMPARED_PER_EVALUATION} inferences per {TASKS_PER_EVALUATION} tasks are compared)."
    ),
}

_FAILURES_SHOWN = 5

# The columns of the table `tasks` that print_training reads.
TRAINING_COLUMNS = ["task_id", "accuracy", "base_accuracy", "train_seconds", "free_share"]

# Two rows of the table `evaluations` with equal values in these columns differ only in the task.
WAY_KEYS = (
    *("num_tasks", "num_distractors", "algorithm", "objective", "num_images", "batch_size"),
    *("log_base", "steps", "rate", "tasks_asked", "batches"),
)

_RECALL_CAPTION = (
    "k: number of masks in the reservoir. n: number of recalls. exact: fraction of masks recalled "
    "without an error. bits: fraction of right bits. Accuracy of labels: label with the recalled "
    "masks, GG with the stored masks. MB: size of the reservoir. rows: size of the k packed masks "
    "in MB. ms: milliseconds per recall."
)


def summarise(evaluations: pa.Table) -> pa.Table:
    """Average rows of the table `evaluations` that differ only in the task.

    Args:
        evaluations: rows of the table `evaluations`.

    Returns:
        One row for each combination of checkpoint, algorithm, objective and settings. Means over
        tasks are in columns such as accuracy_gg_mean. num_batches_sum is the number of batches of
        all tasks. agreement_mean is null if no row has an agreement.
    """
    means = (
        *("task_accuracy", "accuracy_gg", "accuracy_gns", "accuracy_gnu"),
        *("seconds_per_inference", "bits_read_fraction", "agreement"),
    )
    grouped = evaluations.group_by(list(WAY_KEYS)).aggregate(
        [*((name, "mean") for name in means), ("num_batches", "sum")]
    )
    return grouped.sort_by([(key, "ascending") for key in WAY_KEYS])


def narrow_table(title: str | None, caption: str) -> Table:
    """Make a table for the screen, without columns and rows.

    It has no lines between columns and one space of padding, so that 80 columns are enough.
    """
    return Table(
        title=title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
        pad_edge=False,
    )


def _table(rows: Sequence[dict[str, Any]], title: str, extra: Sequence[str]) -> Table:
    """Make the table of the evaluations for the screen.

    Args:
        rows: rows from `summarise`.
        title: title above the table.
        extra: optional columns to show, "bits" or "agree" or both.
    """
    table = narrow_table(title, _CAPTION + "".join(_CAPTIONS[name] for name in extra))
    table.add_column("k", justify="right", no_wrap=True)
    # In this column, long texts wrap and long words are divided, so that no number is cut.
    table.add_column("inferred by", overflow="fold")
    for name in ("queries", "task", "GG", "GNs", "GNu", *extra, "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        extras = {"bits": row["bits_read_fraction_mean"], "agree": row["agreement_mean"]}
        distractors = row["num_distractors"]
        table.add_row(
            f"{row['num_tasks'] - distractors}" + (f"+{distractors}" if distractors else ""),
            inferred_by(row),
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
    """Make the table with the optional columns that have information.

    "agree" has information if inferences were compared with exact one-shot, and "bits" if a
    gradient read less than all bits. If the screen is too narrow, "bits" is left out first.
    """
    extra = []
    if any(row["agreement_mean"] is not None for row in rows):
        extra.append("agree")
    if any(row["bits_read_fraction_mean"] != 1 for row in rows):
        extra.append("bits")
    while extra:
        table = _table(rows, title, extra)
        if fits(console, table):
            return table
        extra.pop()
    return _table(rows, title, [])


def _recall_table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Make the table of the recalls for the screen, from rows of the table `reservoir`."""
    table = narrow_table(title, _RECALL_CAPTION)
    for name in ("k", "rule", "cue", "n", "exact", "bits", "label", "GG", "MB", "rows", "ms"):
        justify: Any = "left" if name in ("rule", "cue") else "right"
        table.add_column(name, justify=justify, no_wrap=name != "rule", overflow="fold")
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


def inferred(evaluations: pa.Table) -> str:
    """Say in one sentence how well the first algorithm in the configuration infers tasks.

    The sentence is about the largest checkpoint.

    Args:
        evaluations: rows of the table `evaluations`, in the order of the configuration.
    """
    everything = evaluations.to_pylist()
    own = [row for row in everything if not row["num_distractors"]] or everything
    k = max(row["num_tasks"] for row in own)
    # The rows are in the order of the configuration, so the first row is of the algorithm and the
    # objective that the user named first.
    ways = [[row[key] for key in WAY_KEYS] for row in own]
    first = next(way for row, way in zip(own, ways, strict=True) if row["num_tasks"] == k)
    rows = [row for row, way in zip(own, ways, strict=True) if way == first]
    num_right = sum(round(row["task_accuracy"] * row["num_batches"]) for row in rows)
    gg, gnu = (fmean(row[name] for row in rows) for name in ("accuracy_gg", "accuracy_gnu"))
    if rows[0]["algorithm"] == GIVEN:
        return f"After {k} tasks, the accuracy with the task given (GG) is {gg:.4f}."
    return (
        f"Among {k} masks, {inferred_by(rows[0])} infers the right task for {num_right} of "
        f"{sum(row['num_batches'] for row in rows)} queries: accuracy {gg:.4f} with the task "
        f"given (GG), {gnu:.4f} with the task inferred (GNu)."
    )


def recalled(reservoir: pa.Table) -> str:
    """Say in one sentence how well masks are recalled by the first rule from the first kind of cue.

    The sentence is about the largest checkpoint.

    Args:
        reservoir: rows of the table `reservoir`, in the order of the configuration.
    """
    rows = reservoir.to_pylist()
    k = max(row["num_tasks"] for row in rows)
    row = next(row for row in rows if row["num_tasks"] == k)
    num_exact = round(row["exact_recall"] * row["num_cues"])
    share = "" if row["share"] is None else f" with {row['share']:.0%} of the bits {row['cue']}"
    return (
        f"Among {k} masks in a reservoir, {row['rule']} recalls {num_exact} of {row['num_cues']} "
        "masks without a wrong bit "
        f"from {'images' if row['cue'] == 'data' else 'cues'}{share}: accuracy "
        f"{row['accuracy']:.4f} with the recalled masks, {row['accuracy_gg']:.4f} with the stored "
        "masks."
    )


def inferred_by(row: Mapping[str, Any]) -> str:
    """Return the algorithm and the objective of a row of the table `evaluations`."""
    return f"{row['algorithm']} {row['objective'] or ''}".rstrip()


def print_summary(
    console: Console,
    directory: Place,
    run_id: str,
    files: Sequence[Place] | None = None,
    mistakes: Mistakes | None = None,
) -> None:
    """Print the result of a run: sentences, tables, mean accuracy, failures, and the run directory.

    Args:
        console: the console to print to.
        directory: the run directory.
        run_id: the identity of the run, which is written in its files.
        files: the files of the tables `evaluations`, `reservoir` and `recovery` to summarise, in
            the order of the configuration's algorithms and rules; None: all files of the run.
        mistakes: the mistakes of a learner on a stream; None: the task was given in training.
    """
    tasks = read_tables(directory / "log", TASKS, TRAINING_COLUMNS, run_id=run_id)
    evaluations = result_rows(directory / "evaluations", EVALUATIONS, run_id, files)
    reservoir = result_rows(directory / "reservoir", RESERVOIR, run_id, files)
    recovery = result_rows(directory / "recovery", RECOVERY, run_id, files)
    stated = ((evaluations, inferred), (reservoir, recalled), (recovery, recovered))
    for table, state in stated:
        if len(table):
            say(console, state(table))
            console.print()
    if len(evaluations):
        rows = summarise(evaluations).to_pylist()
        console.print(_fitting_table(console, rows, f"{len(tasks)} masks"))
    if len(reservoir):
        order = [(name, "ascending") for name in ("num_tasks", "rule", "cue")]
        rows = reservoir.sort_by(order).to_pylist()
        console.print(_recall_table(rows, f"{len(tasks)} masks, recalled from a reservoir"))
    print_training(console, tasks, mistakes)
    print_failures(console, directory, run_id)
    say(console, f"masks, tables and configuration: {directory}")


def print_failures(console: Console, directory: Place, run_id: str) -> None:
    """Print the first rows of the table `failures` of a run, and how many more rows it has."""
    failures = read_tables(directory / "failures", FAILURES, run_id=run_id)
    for row in failures.slice(0, _FAILURES_SHOWN).to_pylist():
        say(
            console,
            f"set aside after {row['tries']} tries: task {row['task_id']} of {row['unit']}: "
            f"{row['error']}",
        )
    if len(failures) > _FAILURES_SHOWN:
        say(console, f"and {len(failures) - _FAILURES_SHOWN} more in the table failures")


def print_training(
    console: Console, tasks: pa.Table, mistakes: Mistakes | None, whose: str = ""
) -> None:
    """Print how accurate the masks are on their own tasks, and how long training took.

    Args:
        console: the console to print to.
        tasks: rows of the table `tasks`.
        mistakes: the mistakes of a learner on a stream; None: the task was given in training.
        whose: a text before each line.
    """
    which = "task given"
    if mistakes is not None:
        which = "own task"
        say(console, f"{whose}{mistakes.described()}")
    say(console, f"{whose}{_trained(tasks, which)}")


def _trained(tasks: pa.Table, which: str) -> str:
    """Say in one line how accurate the masks are on their own tasks, and how long training took.

    Args:
        tasks: rows of the table `tasks`.
        which: a text that says which task a mask is measured on.
    """
    if not len(tasks):
        return "0 masks"
    accuracies = tasks["accuracy"].to_numpy()
    free = tasks["free_share"].drop_null().to_pylist()  # it falls from task to task
    bases = [
        (row["accuracy"], row["base_accuracy"])
        for row in tasks.select(["task_id", "accuracy", "base_accuracy"]).to_pylist()
        if row["task_id"] == 0 and row["base_accuracy"] is not None  # task 0 trains the base
    ]
    return (
        f"{len(tasks)} masks: accuracy on all test images, {which}: mean "
        f"{accuracies.mean():.4f}, lowest {accuracies.min():.4f}; "
        f"{tasks['train_seconds'].to_numpy().mean():.2f} s of one actor per mask"
        + (f"; no mask keeps {min(free):.1%} of the weights" if free else "")
        + "".join(f"; task 0: mask {one:.4f}, dense base {base:.4f}" for one, base in bases)
    )


def result_rows(
    folder: Place, schema: pa.Schema, run_id: str, files: Sequence[Place] | None
) -> pa.Table:
    """Read the rows of one table.

    Args:
        folder: the table's folder.
        schema: the table's schema.
        run_id: the identity of the run.
        files: files of several tables. Only the files in `folder` are read. None: all files in
            `folder`.
    """
    chosen = table_files(folder) if files is None else [f for f in files if f.parent == folder]
    tables = each(lambda path: read_table_file(path, schema, run_id=run_id), chosen, folder)
    return pa.concat_tables([schema.empty_table(), *tables])
