"""Build the report of a folder of several runs: means over seeds, and links to their reports."""

from functools import partial
from pathlib import Path

import pandas as pd

from analysis.load import differences, load, read_configuration
from analysis.methods import accuracy_by_bytes, by_method
from analysis.pages.content import (
    Code,
    Details,
    Links,
    Page,
    Part,
    Section,
    Table,
    Text,
    interval,
    number,
    table,
)
from analysis.pages.render import render as render_page
from analysis.pages.svg import drawing
from analysis.places import is_file, name_of
from analysis.sections.cells import head, way_columns
from analysis.several import MEASURES, lines, load_several, over_seeds, runs_in, swept_values
from analysis.several_figures import (
    FEWEST_FOR_BAND,
    accuracy_over_seeds,
    task_accuracy_by_outputs,
)
from analysis.summary import GIVEN, SWEPT, WAYS


def render(folder: str | Path) -> str:
    """Build the report of several runs as HTML.

    Args:
        folder: a folder of several runs: a path or a URL. The driver of the runs may still be
            working.

    Raises:
        OSError: a file of a run cannot be read.
        ValueError: a file of a run is damaged, or a table has an unknown schema version.
    """
    runs = runs_in(folder)
    text, config = read_configuration(runs[0])
    sections, result = [], "No run has reached a checkpoint yet."
    try:
        over = over_seeds(load_several(folder, "evaluations").to_pandas())
    except FileNotFoundError:  # no run has reached a checkpoint
        pass
    else:
        if over["method"].nunique() > 1:
            points = by_method(runs, over)
            result = _best_method(points)
            sections.append(_by_bytes(points))
        else:
            result = _best_way(over)
        sections.append(_over_seeds(over))
    described = " ".join(str(config[key]) for key in ("network", "data", "family"))
    return render_page(
        Page(
            title=name_of(folder),
            result=result,
            described=f"{len(runs)} runs: {described}",
            sections=[*sections, _runs(runs), _configuration(text, runs)],
        )
    )


def _best_way(over: pd.DataFrame) -> str:
    """State the result of runs with one method: the best way of inference at the most tasks."""
    own = over[over["num_distractors"] == 0]
    last = own[own["num_tasks"] == own["num_tasks"].max()]
    last = last[last["outputs"] == last["outputs"].max()]
    row = last.loc[last["accuracy_gnu"].idxmax()]
    seeds = "1 seed" if row["seeds"] == 1 else f"{row['seeds']} seeds"
    told = f"At {row['num_tasks']} tasks, the mean over {seeds} is"
    if row["algorithm"] == GIVEN:
        return f"{told} {row['accuracy_gg']:.4f} for the accuracy with the task given (GG)."
    [(way, _)] = lines(last.loc[[row.name]])
    return (
        f"{told} {row['task_accuracy']:.4f} for the task accuracy of {way}, "
        f"{row['accuracy_gg']:.4f} for the accuracy with the task given (GG), and "
        f"{row['accuracy_gnu']:.4f} with the task inferred (GNu)."
    )


def _best_method(points: pd.DataFrame) -> str:
    """State the result of runs with several methods."""
    best = points.loc[points["accuracy"].idxmax()]
    least = points.loc[points["bytes_per_task"].idxmin()]
    told = (
        f"Of {points['method'].nunique()} methods at {best['num_tasks']} tasks, {best['method']} "
        f"has the highest accuracy with the task given (GG): {best['accuracy']:.4f}, with "
        f"{best['bytes_per_task']:,.0f} bytes per task."
    )
    if best["bytes_per_task"] <= least["bytes_per_task"]:
        return f"{told} No method needs fewer bytes."
    return (
        f"{told} {least['method']} needs the fewest bytes: {least['bytes_per_task']:,.0f} per "
        f"task, with an accuracy of {least['accuracy']:.4f}."
    )


def _over_seeds(over: pd.DataFrame) -> Section:
    parts: list[Part] = []
    if over["outputs"].nunique() > 1:
        parts.append(
            drawing(
                "Task accuracy against the number of outputs, at the largest number of tasks. "
                f"A line is a mean over seeds. {_bands(over)}",
                lambda: task_accuracy_by_outputs(over),
                "outputs",
            )
        )
    for (method, outputs), rows in over.groupby(["method", "outputs"]):
        caption = (
            f"{method}, {outputs} outputs: accuracy (left) and task accuracy (right) against the "
            f"number of tasks. A line is a mean over seeds. {_bands(rows)}"
        )
        draw = partial(accuracy_over_seeds, rows)
        parts.append(drawing(caption, draw, f"seeds{method}{outputs}"))
    last = over[over["num_tasks"] == over["num_tasks"].max()]
    parts.append(_table(last))
    if len(last) < len(over):
        parts.append(Details("Means at all numbers of tasks", [_table(over)]))
    return Section("Over seeds", parts)


def _bands(over: pd.DataFrame) -> str:
    """Say what the bands of a figure over seeds are."""
    most = over["seeds"].max()
    if most >= FEWEST_FOR_BAND:
        return "Bands are 95 % intervals of this mean by Student's t."
    if most == 1:
        return "With one seed, there are no intervals over seeds."
    return f"With {most} seeds, no intervals are drawn: most of them are wider than the figure."


def _by_bytes(points: pd.DataFrame) -> Section:
    """Make the section that compares methods by accuracy and bytes."""
    caption = (
        f"Accuracy with the task given (GG) at {points['num_tasks'].iloc[0]} tasks, against the "
        "bytes that are stored per task. The line is the Pareto front: no other method has a "
        "higher accuracy with the same or fewer bytes. Bars are 95 % intervals of the mean over "
        "seeds. "
        "Open marks show the accuracy with the task inferred (GNu), by the best algorithm."
    )
    rows = [
        [
            row.method,
            row.outputs,
            number(row.bytes_per_task, ",.0f"),
            number(row.accuracy),
            number(row.inferred),
            row.way,
            "yes" if row.is_best else "",
        ]
        for row in points.itertuples()
    ]
    heads = ["method", "outputs", "bytes per task", "accuracy GG", "accuracy GNu", "inferred by"]
    return Section(
        "Accuracy and bytes",
        [
            drawing(caption, lambda: accuracy_by_bytes(points), "bytes"),
            table(
                "Bytes of a state in the store, and the task's share of the floats that tasks "
                "share. The fixed weights are made from their seed.",
                [*heads, "on the front"],
                rows,
            ),
        ],
    )


def _table(over: pd.DataFrame) -> Table:
    way, ways, told = way_columns(over, ["method", "outputs", "num_tasks", *WAYS, "seeds"])
    heads = list(way)
    for name in MEASURES:
        heads += [head(name), "std", "95 %"]
    has_spread = bool((over["seeds"] > 1).any())
    rows = []
    for (_, row), cells in zip(over.iterrows(), ways, strict=True):
        for name in MEASURES:
            cells += [number(row[name]), number(row[f"{name}_std"])]
            cells.append(interval(row[f"{name}_low"], row[f"{name}_high"]))
        rows.append(cells)
    caption = (
        "Means over seeds of the runs' means over tasks. std: standard deviation over seeds, with "
        "the divisor n - 1. 95 %: interval of the mean over seeds by Student's t. It assumes that "
        "the means of runs are normally distributed, and may end above 1."
    )
    if not has_spread:  # one seed has neither a standard deviation nor an interval
        kept = [i for i, name in enumerate(heads) if name not in ("std", "95 %")]
        heads, rows = [heads[i] for i in kept], [[row[i] for i in kept] for row in rows]
        caption = "Means over tasks. With one seed, there is no interval over seeds."
    return table(f"{caption} {told}", heads, rows)


def _runs(runs: list[str]) -> Section:
    rows, links = [], []
    for run in runs:
        name = name_of(run)
        num_tasks, of_run = read_configuration(run)[1]["tasks"], swept_values(run)
        try:
            tasks = load(run, "tasks").to_pandas()
        except FileNotFoundError:
            done, accuracy = 0, float("nan")
        else:
            done, accuracy = len(tasks), tasks["accuracy"].mean()
        values = [of_run[key] for key in SWEPT]
        rows.append([name, *values, f"{done} of {num_tasks}", number(accuracy)])
        if is_file(run, "report.html"):
            links.append((name, f"{name}/report.html"))
    heads = ["run", *SWEPT, "tasks committed", "accuracy, task given"]
    parts: list[Part] = [table("Runs of this folder", heads, rows)]
    if links:
        parts.append(Links("Reports of the runs:", links))
    return Section("Runs", parts)


def _configuration(text: str, runs: list[str]) -> Section:
    apart = ", ".join(differences(runs)) or "no key"
    told = f"This is the configuration of {name_of(runs[0])}. The runs differ in: {apart}."
    return Section("Configuration", [Text(told), Details("config.yaml", [Code(text)])])
