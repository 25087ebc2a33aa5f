"""Build the report of a folder of several runs: means over seeds, and links to their reports."""

from functools import partial
from html import escape
from pathlib import Path

import pandas as pd

from analysis import page
from analysis.load import differences, load, read_configuration
from analysis.methods import accuracy_by_bytes, by_method
from analysis.several import MEASURES, SWEPT, load_several, over_seeds, runs_in, swept_values
from analysis.several_figures import accuracy_over_seeds, task_accuracy_by_outputs
from analysis.summary import WAYS

_HEADS = {"num_distractors": "untrained masks", "num_images": "images", "num_tasks": "tasks"}


def render(folder: Path) -> str:
    """Build the report of several runs as HTML.

    Args:
        folder: a folder of several runs. The driver of the runs may still be working.

    Raises:
        OSError: a file of a run cannot be read.
        ValueError: a file of a run is damaged, or a table has an unknown schema version.
    """
    runs = runs_in(folder)
    text, config = read_configuration(runs[0])
    sections = []
    try:
        over = over_seeds(load_several(folder, "evaluations").to_pandas())
    except FileNotFoundError:  # no run has reached a checkpoint
        pass
    else:
        if over["method"].nunique() > 1:
            sections.append(_by_bytes(runs, over))
        sections.append(_over_seeds(over))
    sections += [_runs(runs), _configuration(text, runs)]
    described = " ".join(str(config[key]) for key in ("network", "data", "family"))
    lead = f'<p class="soft">{len(runs)} runs: {escape(described)}</p>'
    return page.page(folder.name, lead, sections)


def _over_seeds(over: pd.DataFrame) -> str:
    parts = []
    if over["outputs"].nunique() > 1:
        parts.append(
            page.figure(
                "Task accuracy against the number of outputs, at the largest number of tasks. "
                "Bands are 95 % intervals of the mean over seeds by Student's t.",
                lambda: task_accuracy_by_outputs(over),
                "outputs",
            )
        )
    for (method, outputs), rows in over.groupby(["method", "outputs"]):
        alt = (
            f"{method}, {outputs} outputs: accuracy (left) and task accuracy (right) against the "
            "number of tasks. A line is a mean over seeds. Bands are 95 % intervals of this mean "
            "by Student's t."
        )
        draw = partial(accuracy_over_seeds, rows)
        parts.append(page.figure(alt, draw, f"seeds{method}{outputs}"))
    return page.section("Over seeds", *parts, _table(over))


def _by_bytes(runs: list[str], over: pd.DataFrame) -> str:
    """Make the section that compares methods by accuracy and bytes."""
    points = by_method(runs, over)
    caption = (
        f"Accuracy with the task given (GG) at {points['num_tasks'].iloc[0]} tasks, against the "
        "bytes that are stored per task. The line is the Pareto front: no other method has a "
        "higher accuracy with the same or fewer bytes. Bars are 95 % intervals of the mean over "
        "seeds. "
        "Open circles show the accuracy with the task inferred (GNu), by the best algorithm."
    )
    rows = [
        [
            row.method,
            row.outputs,
            page.number(row.bytes_per_task, ".0f"),
            page.number(row.accuracy),
            page.number(row.inferred),
            row.way,
            "yes" if row.is_best else "",
        ]
        for row in points.itertuples()
    ]
    heads = ["method", "outputs", "bytes per task", "accuracy GG", "accuracy GNu", "inferred by"]
    return page.section(
        "Accuracy and bytes",
        page.figure(caption, lambda: accuracy_by_bytes(points), "bytes"),
        page.table(
            "Bytes of a state in the store, and the task's share of the floats that tasks share. "
            "The fixed weights are made from their seed.",
            [*heads, "on the front"],
            rows,
        ),
    )


def _table(over: pd.DataFrame) -> str:
    settings = [name for name in WAYS if over[name].notna().any()]
    keys = ["method", "outputs", "num_tasks", *settings]
    heads = [_HEADS.get(name, name.replace("_", " ")) for name in [*keys, "seeds"]]
    for name in MEASURES:
        told = name.replace("_", " ").replace("accuracy g", "accuracy G")
        heads += [told, "std", "95 %"]
    rows = []
    for _, row in over.iterrows():
        cells: list[object] = [_plain(row[name]) for name in [*keys, "seeds"]]
        for name in MEASURES:
            cells += [page.number(row[name]), page.number(row[f"{name}_std"])]
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            cells.append(("" if pd.isna(low) else f"{low:.4f} to {high:.4f}", float(low)))
        rows.append(cells)
    caption = (
        "Means over seeds of the runs' means over tasks. std: standard deviation over seeds, with "
        "the divisor n - 1. 95 %: interval of the mean over seeds by Student's t. It assumes that "
        "the means of runs are normally distributed, and may end above 1."
    )
    return page.table(caption, heads, rows)


def _plain(value: object) -> object:
    """Convert a missing value to "", and a float without a fraction to an int."""
    if pd.isna(value):
        return ""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _runs(runs: list[str]) -> str:
    rows, links = [], []
    for run in runs:
        name = Path(run).name
        num_tasks, of_run = read_configuration(run)[1]["tasks"], swept_values(run)
        try:
            tasks = load(run, "tasks").to_pandas()
        except FileNotFoundError:
            done, accuracy = 0, float("nan")
        else:
            done, accuracy = len(tasks), tasks["accuracy"].mean()
        values = [of_run[key] for key in SWEPT]
        rows.append([name, *values, f"{done} of {num_tasks}", page.number(accuracy)])
        if (Path(run) / "report.html").exists():
            links.append(f'<a href="{escape(name)}/report.html">{escape(name)}</a>')
    heads = ["run", *SWEPT, "tasks committed", "accuracy, task given"]
    told = f"<p>Reports of the runs: {', '.join(links)}.</p>" if links else ""
    return page.section("Runs", page.table("Runs of this folder", heads, rows), told)


def _configuration(text: str, runs: list[str]) -> str:
    apart = ", ".join(differences(runs)) or "no key"
    return page.section(
        "Configuration",
        f"<p>This is the configuration of {escape(Path(runs[0]).name)}. The runs differ in: "
        f"{escape(apart)}.</p><pre>{escape(text)}</pre>",
    )
