"""Write a run's report: figures, tables, configuration and provenance in one HTML file.

python -m analysis.report run_dir=runs/mnist5k-permuted-32
python -m analysis.report runs/mnist5k-permuted-32
python -m analysis.report runs/mnist5k-permuted-32-seeds

The last command is for a folder of several runs, for example one for each seed.

After a run, the harness starts this module in a separate process, because `harness` may not import
`analysis`, and because an error in the report must not end the run.
"""

import os
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from pyarrow.fs import LocalFileSystem

from analysis import figures, page, several_report, stored, summary
from analysis.allocation import masks_by_task, mistakes
from analysis.commandline import Parser, exit_code, run_command, run_directory
from analysis.continual import continual_measures
from analysis.load import load, read_configuration
from analysis.page import figure as _figure
from analysis.page import number as _number
from analysis.reading import LARGEST_JSON, parse_json, read_text
from analysis.several import runs_in

NAME = "report.html"
PROGRAM = "python -m analysis.report"
LEAST_ACCURATE = 100  # number of tasks that the report lists one by one

Tables = dict[str, pd.DataFrame]


def read_tables(run_dir: Path) -> Tables:
    """Read the tables of a run.

    Returns:
        A mapping from table name to data frame, for each table that the run has. If an evaluation
        or a recall was done twice, only the row with the larger sample is kept.
    """
    found = {}
    for name in ("tasks", "evaluations", "reservoir", "allocation"):
        try:
            found[name] = load(run_dir, name).to_pandas()
        except FileNotFoundError:
            continue
    if "evaluations" in found:
        found["evaluations"] = summary.largest_samples(found["evaluations"])
    if "reservoir" in found:
        found["reservoir"] = summary.largest_recalls(found["reservoir"])
    return found


def memory_bandwidth(num_bytes: int = 2**27) -> float:
    """Measure how many bytes per second one thread reads from memory, in the best of 3 passes."""
    words = np.ones(num_bytes // 8, dtype=np.uint64)
    passes = []
    for _ in range(3):
        begin = time.perf_counter()
        words.max()  # memory limits the speed of a maximum, but not the speed of a sum
        passes.append(time.perf_counter() - begin)
    return num_bytes / min(passes)


def render(run_dir: Path) -> str:
    """Build the report of a run as HTML.

    Args:
        run_dir: the run directory. The driver of the run may still be working.

    Raises:
        OSError: run_dir is not the folder of a run, the run has committed no task yet, or a file of
            the run cannot be read.
        ValueError: a file of the run is damaged, or a table has an unknown schema version.
    """
    text, config = read_configuration(run_dir)
    _check(config, run_dir)
    starts, tables = _starts(run_dir), read_tables(run_dir)
    if "tasks" not in tables:
        raise FileNotFoundError(
            f"{run_dir / 'log'} must hold a committed task, got none: wait for the first commit"
        )
    masks = stored.layout(run_dir)
    committed = "masks" if "allocation" in tables else f"of {config['tasks']} tasks"
    sections = [_training(tables["tasks"], committed)]
    if "evaluations" in tables:
        sections += _inference(tables["evaluations"], masks, run_dir)
    if "reservoir" in tables:
        sections.append(_reservoir(tables["reservoir"]))
    if "allocation" in tables:
        counted = config["train.steps"], config["tasks"], len(tables["tasks"])
        sections.append(_allocation(tables["allocation"], mistakes(tables["allocation"], *counted)))
    sections += [_storage(tables, masks, run_dir), _origin(text, starts)]
    described = (
        f"{config['network']} on {config['data']}, {config['family']} tasks, "
        f"method {config['method']}, recipe {config['train.name']}, seed {config['seed']}"
    )
    lead = f'<p class="soft">{escape(described)}</p>'
    if "evaluations" in tables:
        best = summary.main_way(tables["evaluations"], *_first_way(config))
        lead = f"<p>{escape(summary.result(best))}</p>{lead}"
    return page.page(run_dir.name, lead + _facts(tables, config["tasks"]), sections)


# The keys of the configuration that the report shows, and the types of their values.
_SHOWN = {
    "tasks": int,
    "seed": int,
    **dict.fromkeys(("network", "data", "family", "method", "train.name"), str),
}


def _check(config: dict[str, Any], run_dir: Path) -> None:
    wrong = [key for key, kind in _SHOWN.items() if type(config.get(key)) is not kind]
    if wrong:
        raise ValueError(
            f"{run_dir / 'config.yaml'} must have the keys {', '.join(_SHOWN)}, got no value or a "
            f"wrong value of {', '.join(wrong)}: restore the file from a copy of the run"
        )


def _first_way(config: dict[str, Any]) -> list[str | None]:
    """Return the first algorithm and the first objective in the run's configuration."""
    keys = ("evaluate.algorithms", "evaluate.objectives")
    return [next(iter(config.get(key) or ()), None) for key in keys]


def _facts(tables: Tables, asked: int) -> str:
    tasks = tables["tasks"]
    facts = [
        ("masks committed", f"{len(tasks)}")
        if "allocation" in tables
        else ("tasks committed", f"{len(tasks)} of {asked}"),
        ("accuracy, task given", f"{tasks['accuracy'].mean():.4f}"),
        ("density", f"{tasks['density'].mean():.3f}"),
        ("masks, packed", _bytes(int(tasks["mask_bytes"].sum()))),
    ]
    items = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts)
    return f'<dl class="facts">{items}</dl>'


def _bytes(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _training(tasks: pd.DataFrame, committed: str) -> str:
    """Describe the training.

    Args:
        tasks: rows of the table `tasks`.
        committed: the words after the number of rows, such as "of 32 tasks" or "masks".
    """
    columns = ["accuracy", "loss", "density", "train_seconds"]
    spread = (
        tasks[columns]
        .describe(percentiles=[0.05, 0.5, 0.95])
        .loc[["mean", "std", "min", "5%", "50%", "95%", "max"]]
    )
    low, high = summary.bootstrap(tasks["accuracy"])
    rows = [[name, *(_number(value) for value in row)] for name, row in spread.iterrows()]
    worst = tasks.nsmallest(LEAST_ACCURATE, "accuracy")
    listed = [
        [int(row.task_id), *(_number(getattr(row, name)) for name in columns), row.worker]
        for row in worst.itertuples()
    ]
    return page.section(
        "Training",
        f"<p>{len(tasks)} {committed} are committed. The mean accuracy with the task given is "
        f"{tasks['accuracy'].mean():.4f} (95 % by bootstrap: {low:.4f} to {high:.4f}). All actors "
        f"together trained for {tasks['train_seconds'].sum():,.0f} seconds.</p>",
        page.table("All tasks", ["statistic", *columns], rows),
        f"<details><summary>The {len(worst)} least accurate tasks</summary>",
        page.table("Least accurate first", ["task", *columns, "worker"], listed),
        "</details>",
    )


def _inference(evaluations: pd.DataFrame, masks: stored.Layout, run_dir: Path) -> list[str]:
    found = summary.evaluation_summary(evaluations)
    bandwidth = memory_bandwidth()
    parts = [
        _figure(
            "Accuracy with the task given and with the task inferred (left), and task accuracy "
            "(right), against the number of masks in the superposition. Bars are 95 % intervals "
            "of the mean over tasks, from the normal distribution.",
            lambda: figures.accuracy_by_masks(evaluations),
            "accuracy",
        )
    ]
    own = evaluations[evaluations["num_distractors"] == 0]
    if (own.groupby("algorithm")["objective"].nunique() > 1).any():
        alt = "Objectives H and G: wrongly inferred tasks. Bands are 95 % intervals by bootstrap."
        draw = figures.objectives_compared
        parts.append(_figure(alt, lambda: draw(evaluations), "objectives"))
    if own["algorithm"].nunique() > 1:
        alt = "Algorithms: wrongly inferred tasks. Bands are 95 % intervals by bootstrap."
        compare = figures.algorithms_compared
        parts.append(_figure(alt, lambda: compare(evaluations), "algorithms"))
    angles = stored.angles(run_dir)
    if angles is not None and (own["num_tasks"] > 1).any():
        alt = "Rotations: task accuracy against the angle to the nearest other stored task."
        rotations = figures.rotations_confused
        parts.append(_figure(alt, lambda: rotations(evaluations, angles), "rotations"))
    parts.append(_evaluation_table(found))
    if evaluations["num_tasks"].nunique() > 1:
        parts.append(_continual_table(continual_measures(evaluations)))
    inferring = evaluations[evaluations["algorithm"] != summary.GIVEN]
    if inferring.empty:
        return [page.section("Task inference", *parts)]
    timing = [
        _figure(
            "Left: median seconds per inference, with a band between the quartiles. The dashed "
            "line is the shortest possible time of a full scan, which reads all packed bits once, "
            f"at {bandwidth / 1e9:.1f} GB/s. One thread reads at this speed on the machine that "
            "wrote this report. Right: mask bytes read per gradient.",
            lambda: figures.time_by_masks(inferring, masks.row_bytes, bandwidth),
            "time",
        ),
        _exponent_table(found[found["algorithm"] != summary.GIVEN]),
    ]
    return [
        page.section("Task inference", *parts),
        page.section("Time and bits read", *timing),
    ]


# Column of a table -> its head in the report.
_HEADS = {
    "num_distractors": "untrained masks",
    "num_images": "images",
    "batch_size": "batch size",
    "log_base": "base",
    "block": "bits per reservoir",
    "most_steps": "most sweeps",
}


def _way_columns(rows: pd.DataFrame, ways: list[str]) -> tuple[list[str], list[list[object]]]:
    """Make the heads and cells of the columns that say how tasks were inferred or masks recalled.

    Args:
        rows: rows of a table.
        ways: names of these columns. A column without any value is left out.

    Returns:
        The heads of the columns, and the cells of each row.
    """
    used = [name for name in ways if rows[name].notna().any()]
    cells = [[_plain(value) for value in row] for row in rows[used].itertuples(index=False)]
    return [_HEADS.get(name, name) for name in used], cells


def _plain(value: object) -> object:
    """Convert a missing value to "", and a float without a fraction to an int."""
    if pd.isna(value):
        return ""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _evaluation_table(found: pd.DataFrame) -> str:
    way, ways = _way_columns(found, summary.WAYS)
    heads = ["masks", *way, "tasks", "task accuracy", "task accuracy, 95 %", "accuracy GG"]
    heads += ["accuracy GNs", "accuracy GNu", "accuracy GNu, 95 %", "ms", "bits read"]
    rows = []
    for (_, row), cells_of_way in zip(found.iterrows(), ways, strict=True):
        bits, milliseconds = row["bits_read_fraction"], 1000 * row["seconds_per_inference"]
        cells: list[object] = [int(row["num_tasks"]), *cells_of_way, int(row["tasks"])]
        cells += [_number(row["task_accuracy"]), _interval(row, "task_accuracy")]
        cells += [_number(row[f"accuracy_{name}"]) for name in ("gg", "gns", "gnu")]
        cells += [_interval(row, "accuracy_gnu"), _number(milliseconds, ".3f")]
        rows.append([*cells, _number(bits, ".1%")])
    caption = (
        "Means over tasks. The 95 % intervals are by bootstrap over tasks. ms: median milliseconds "
        "per inference."
    )
    return page.table(caption, heads, rows)


def _continual_table(found: pd.DataFrame) -> str:
    way, ways = _way_columns(found, summary.WAYS)
    rows = [
        [
            int(row["num_tasks"]),
            *cells,
            *(_number(row[name]) for name in ("average_accuracy", "forgetting")),
            *(_number(row["backward_transfer"]), int(row["earlier_tasks"])),
        ]
        for cells, (_, row) in zip(ways, found.iterrows(), strict=True)
    ]
    caption = (
        "Measures of continual learning, with the accuracy GNu. Forgetting and backward transfer "
        "are means over the tasks that were also evaluated with fewer masks. With the task given, "
        "both are 0, because a mask never changes."
    )
    heads = ["masks", *way, "average accuracy", "forgetting", "backward transfer", "tasks compared"]
    return page.table(caption, heads, rows)


def _interval(row: pd.Series, column: str) -> tuple[str, float]:
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    return f"{low:.4f} to {high:.4f}", float(low)


def _exponent_table(found: pd.DataFrame) -> str:
    exponents = summary.time_exponents(found)
    if exponents.empty:
        return (
            "<p>The growth of time with the number of masks is unknown. It needs evaluations at "
            f"{summary.FEWEST_SIZES} or more numbers of masks, and the largest number must be at "
            f"least {summary.LEAST_SPAN} times the smallest.</p>"
        )
    way, ways = _way_columns(exponents, summary.WAYS)
    rows = [
        [*cells, int(row["checkpoints"]), _number(row["exponent"], ".2f")]
        for cells, (_, row) in zip(ways, exponents.iterrows(), strict=True)
    ]
    caption = (
        "Growth of time: the exponent b in seconds = a * masks^b, by least squares on logarithms"
    )
    return page.table(caption, [*way, "checkpoints", "exponent"], rows)


def _reservoir(reservoir: pd.DataFrame) -> str:
    columns = ["bit_accuracy", "exact_recall", "accuracy", "accuracy_gg"]
    ordered = reservoir.sort_values(["rule", "cue", "num_tasks"])
    way, ways = _way_columns(ordered, ["rule", "block", "cue", *summary.RECALL_SETTINGS])
    rows = []
    for cells_of_way, row in zip(ways, ordered.itertuples(), strict=True):
        cells: list[object] = [*cells_of_way, int(row.num_tasks), int(row.num_cues)]
        cells += [_number(getattr(row, name)) for name in columns]
        rows.append([*cells, int(row.reservoir_bytes), int(row.store_bytes)])
    heads = [*way, "masks", "cues", "bits right", "masks exact", "accuracy"]
    return page.section(
        "Reservoirs",
        _figure(
            "Left: fraction of masks recalled without an error, against the number of masks "
            "stored, with 95 % intervals by Wilson. A dotted line is a rule's capacity in theory. "
            "Right: bytes of the reservoir and of the packed masks.",
            lambda: figures.recall_by_masks(reservoir),
            "recall",
        ),
        _figure(
            "Sweeps of a recall that changed a bit, against the number of masks stored. Points are "
            "means over cues. For the cue data, the search that comes before the sweeps is not "
            "counted.",
            lambda: figures.sweeps_by_masks(reservoir),
            "sweeps",
        ),
        page.table("Recall", [*heads, "accuracy GG", "reservoir bytes", "packed bytes"], rows),
    )


def _allocation(allocation: pd.DataFrame, found: pd.Series) -> str:
    """Describe the masks of a learner on a stream.

    Args:
        allocation: rows of the table `allocation`.
        found: the result of `mistakes`.
    """
    return page.section(
        "Allocation",
        f"<p>The learner was not told the task. It allocated {found['masks']} masks for "
        f"{found['tasks']} tasks. A false split is a mask for a task that had a mask. A false "
        "merge is a task for which the learner mostly used the mask of another task.</p>",
        page.table("Counts", list(found.index), [[int(value) for value in found]]),
        _figure(
            "Left: allocated masks against the tasks that the stream has shown. Right: the score "
            "of each decision, divided by its threshold. A mask is allocated if the ratio is below "
            "1, which should be so at the first decision about a task only.",
            lambda: masks_by_task(allocation),
            "allocation",
        ),
    )


def _storage(tables: Tables, masks: stored.Layout, run_dir: Path) -> str:
    tasks = tables["tasks"]
    most = max(10, len(tasks))
    steps = np.unique(np.geomspace(1, most, 40).round().astype(int))
    density = float(tasks["density"].mean())
    sizes = figures.storage_bytes(steps, masks, density, tables.get("reservoir"))
    rows = [
        [name, int(sizes[name].iloc[-1]), _number(_exponent(sizes[name]), ".2f")] for name in sizes
    ]
    return page.section(
        "Masks and bytes",
        _figure(
            "Bytes that masks need, stored in several ways, against the number of masks. Dashed "
            "lines are sizes that do not grow with the number of masks.",
            lambda: figures.bytes_by_masks(sizes),
            "bytes",
        ),
        page.table(
            f"Sizes for {most} masks. The exponent is b in bytes = a * masks^b.",
            ["storage", "bytes", "exponent"],
            rows,
        ),
        _layers(tasks, masks, run_dir) if masks.layers else "",
    )


def _layers(tasks: pd.DataFrame, masks: stored.Layout, run_dir: Path) -> str:
    """Make the figure and the table of the masks' densities and overlaps, plane by plane."""
    statistics = stored.layer_statistics(stored.sample_masks(run_dir, tasks), masks)
    layers = [
        [row["layer"], *(_number(row[name]) for name in ("density", "overlap", "chance"))]
        for _, row in statistics.iterrows()
    ]
    return "".join(
        (
            _figure(
                "Density of the masks, and the fraction of ones that two masks have in common, by "
                f"layer. The sample has {min(stored.SAMPLE, len(tasks))} masks, spread evenly over "
                "the tasks.",
                lambda: figures.masks_by_layer(statistics),
                "layers",
            ),
            page.table("Means by layer", ["layer", "density", "overlap", "by chance"], layers),
        )
    )


def _exponent(sizes: pd.Series) -> float:
    return summary.scaling_exponent(sizes.index, sizes)


def _origin(config: str, starts: list[dict[str, Any]]) -> str:
    parts = [f"<h3>Configuration</h3><pre>{escape(config)}</pre>"]
    if starts:
        rows = [
            [one.get("at", ""), one.get("commit") or "unknown", " ".join(one.get("command", []))]
            for one in starts
        ]
        last = {key: starts[-1].get(key) for key in ("machine", "versions")}
        parts += [
            "<h3>Provenance</h3>",
            page.table("Starts", ["time", "commit", "command"], rows),
            f"<pre>{escape(yaml.safe_dump(last, sort_keys=False))}</pre>",
        ]
    return page.section("Configuration and provenance", *parts)


def _starts(run_dir: Path) -> list[dict[str, Any]]:
    """Read the starts of a run from its provenance.json; [] if the file does not exist.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not a mapping with a list of starts.
    """
    file = run_dir / "provenance.json"
    if not file.exists():
        return []
    try:
        text = read_text(LocalFileSystem(), str(file), LARGEST_JSON)
        starts = parse_json(text, str(file))["starts"]
        if all(isinstance(one, dict) and _is_command(one.get("command", [])) for one in starts):
            return list(starts)
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(
        f"{file} must be JSON with a list `starts`, got other content: restore the file from a "
        "copy of the run, or remove it"
    )


def _is_command(words: Any) -> bool:
    return isinstance(words, list) and all(isinstance(word, str) for word in words)


def write(run_dir: Path) -> Path:
    """Write the report of a run or of several runs. If this fails, the old report stays unchanged.

    The modification time of the file is set to the time at which this function began to read the
    run. If a table changes after this time, the report is out of date.

    Args:
        run_dir: the run directory, or the folder of several runs.

    Returns:
        The path of the report.

    Raises:
        OSError: the run cannot be read (see render), or the report cannot be written.
        ValueError: a file of the run is damaged (see render).
    """
    begin, file = time.time(), run_dir / NAME
    partial = file.with_name(f".{NAME}.{os.getpid()}.partial")
    try:
        html = several_report.render(run_dir) if runs_in(run_dir) else render(run_dir)
        partial.write_text(html, encoding="utf-8")
        os.utime(partial, (begin, begin))
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return file


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> None:
    """Write the reports of the runs that the command line names.

    Args:
        arguments: the arguments of the command line; None: those of this process.
        program: the text by which the user started the program, for the help.
    """
    about = (__doc__ or "").replace(PROGRAM, program)
    parser = Parser(about, "run_dir=runs/mnist5k-permuted-32", program)
    told = "run directories, as run_dir=FOLDER"
    parser.add_argument("run_dir", type=run_directory, nargs="+", help=told)
    for run_dir in parser.parse_args(arguments).run_dir:
        if "://" in run_dir:
            told = f"run_dir must be a folder on this machine, got {run_dir}: try a copy of it"
            parser.error(told)
        print(write(Path(run_dir)))


def command(arguments: Sequence[str]) -> int:
    """Write reports for the command `supermask report`, and return the exit code."""
    return exit_code(lambda: main(arguments, "supermask report"))


if __name__ == "__main__":
    run_command(main)
