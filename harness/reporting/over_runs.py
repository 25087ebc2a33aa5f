"""Print the results of several runs of a command, and their means over the runs' seeds."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from harness.config.run_folders import SWEPT, values_in
from harness.places.places import Place
from harness.plan.ownership import Mistakes
from harness.reporting.display import say
from harness.reporting.end_table import (
    TRAINING_COLUMNS,
    WAY_KEYS,
    inferred,
    inferred_by,
    narrow_table,
    print_failures,
    print_training,
    recalled,
    result_rows,
    summarise,
)
from harness.reporting.recoveries import recovered
from harness.run.run import Run
from harness.tables.files import read_tables
from harness.tables.inference import EVALUATIONS
from harness.tables.reservoirs import RECOVERY, RESERVOIR
from harness.tables.schemas import TASKS

# Heading of the printed row -> column of the table `evaluations`.
_MEASURES = {"task": "task_accuracy", "GG": "accuracy_gg", "GNu": "accuracy_gnu"}
_CAPTION = (
    "k: number of masks (+ untrained masks). Each mean is over the seeds, of the runs' means over "
    "tasks. std: standard deviation over seeds, divided by n - 1. 95 %: interval of the mean by "
    "Student's t, for normally distributed means of runs. task: fraction of queries with the "
    "right task. Accuracy of labels: GG with the given task, GNu with the inferred task, but 0 for "
    "a batch whose inferred task is wrong."
)


@dataclass(frozen=True)
class OneRun:
    """The results of one of several runs.

    Attributes:
        directory: the run directory.
        run_id: the identity of the run.
        swept: a mapping from key to value, for the keys in which the runs of a command may differ.
        files: the result files of this start's units.
        mistakes: the mistakes of a learner on a stream; None: the task was given in training.
    """

    directory: Place
    run_id: str
    swept: dict[str, Any]
    files: Sequence[Place]
    mistakes: Mistakes | None = None

    @classmethod
    def of(cls, run: Run, files: Sequence[Place], mistakes: Mistakes | None) -> "OneRun":
        """Take the values from an open run."""
        swept = {key: getattr(run.spec.config, key) for key in SWEPT.values()}
        swept |= values_in(run.directory.name)  # the name of a folder also has a method's options
        return cls(run.directory, run.store.run_id, swept, files, mistakes)


@dataclass(frozen=True)
class Spread:
    """The mean of some values, and how far the values are apart.

    Attributes:
        count: number of values.
        mean: their mean.
        std: their standard deviation, with the divisor count - 1; None for one value.
        low: the lower end of the mean's 95 % interval by Student's t; None for one value.
        high: the upper end; None for one value.
    """

    count: int
    mean: float
    std: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Compute the spread of one or more values."""
        count, mean = len(values), fmean(values)
        if count < 2:
            return cls(count, mean, None, None, None)
        from scipy.stats import t  # here, because the import takes a second

        std = stdev(values)
        half = float(t.ppf(0.975, count - 1)) * std / count**0.5
        return cls(count, mean, std, mean - half, mean + half)


def print_over_runs(console: Console, runs: Sequence[OneRun]) -> None:
    """Print a few lines about each run, and a table of the means over seeds.

    Args:
        console: the console to print to.
        runs: the runs, at least one.
    """
    ways: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        evaluations = result_rows(run.directory / "evaluations", EVALUATIONS, run.run_id, run.files)
        if len(evaluations):
            say(console, f"{run.directory.name}: {inferred(evaluations)}")
            for row in summarise(evaluations).to_pylist():
                row |= {key: value for key, value in run.swept.items() if key != "seed"}
                ways[tuple(row[key] for key in (*WAY_KEYS, *SWEPT.values()) if key in row)].append(
                    row
                )
        _print_run(console, run)
        console.print()
    if ways:
        console.print(_table(list(ways.values()), len(runs)))
    say(console, f"masks, tables and configurations: {runs[0].directory.parent}")


def _print_run(console: Console, run: OneRun) -> None:
    tasks = read_tables(run.directory / "log", TASKS, TRAINING_COLUMNS, run_id=run.run_id)
    reservoir = result_rows(run.directory / "reservoir", RESERVOIR, run.run_id, run.files)
    if len(reservoir):
        say(console, recalled(reservoir))
    recovery = result_rows(run.directory / "recovery", RECOVERY, run.run_id, run.files)
    if len(recovery):
        say(console, recovered(recovery))
    print_training(console, tasks, run.mistakes, f"{run.directory.name}: ")
    print_failures(console, run.directory, run.run_id)


def _table(ways: Sequence[Sequence[dict[str, Any]]], num_runs: int) -> Table:
    """Make the table of the means over seeds.

    Args:
        ways: for each way of inference, the rows of the runs with this way, from `summarise`.
        num_runs: the number of runs.
    """
    table = narrow_table(f"{num_runs} runs", _CAPTION)
    others = [
        key for key in SWEPT.values() if key != "seed" and len({rows[0][key] for rows in ways}) > 1
    ]
    table.add_column("k", justify="right", no_wrap=True)
    table.add_column("inferred by", overflow="fold")
    for name in (*others, "seeds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("of", no_wrap=True)
    for name in ("mean", "std", "95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    for rows in ways:
        first = rows[0]
        beside = first["num_distractors"]
        way = (
            f"{first['num_tasks'] - beside}" + (f"+{beside}" if beside else ""),
            inferred_by(first),
            *(str(first[key]) for key in others),
            str(len(rows)),
        )
        for name, column in _MEASURES.items():
            table.add_row(*way, name, *_cells([row[f"{column}_mean"] for row in rows]))
            way = ("",) * len(way)
    return table


def _cells(values: Sequence[float]) -> tuple[str, str, str]:
    found = Spread.of(values)
    if found.std is None:
        return f"{found.mean:.4f}", "", ""
    return f"{found.mean:.4f}", f"{found.std:.4f}", f"{found.low:.4f} to {found.high:.4f}"
