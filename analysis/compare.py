"""Compare runs, such as masks and baselines: one figure, and a table of accuracies and bytes.

python -m analysis.compare runs/masks runs/batche runs/psp
python -m analysis.compare runs/masks-seeds runs/psp-seeds --file figure3.pdf
python -m analysis.compare runs/masks-seeds runs/psp-seeds --difference
python -m analysis.compare runs/masks --checkpoints

A folder of several runs counts as one: its lines are means over seeds. --difference also prints how
much each run or method differs from the first, over pairs of equal tasks and seeds. --checkpoints
also prints all checkpoints with 95 % intervals.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import stored
from analysis.checkpoints import checkpoints_table
from analysis.commandline import Parser, figure_file, run_command, run_directory
from analysis.drawing.storage import PACKED, SHARED_ARRAYS, WEIGHTS_SEED, storage_bytes
from analysis.drawing.style import legend_below, name_axes, panels, tick_checkpoints
from analysis.drawing.ways import agreeing
from analysis.load import configuration
from analysis.paired import check_same_tasks, differences_table
from analysis.several import lines, load_several, over_seeds, runs_in, swept_values
from analysis.summary import GIVEN, SWEPT

# The keys in which the runs of a folder may differ. Means are computed over the seeds.
_APART = [key for key in SWEPT if key != "seed"]
# The fixed weights are made from their seed.
_NEEDED = (PACKED, SHARED_ARRAYS, WEIGHTS_SEED)


@dataclass(frozen=True, eq=False)  # data frames have no single truth value
class Group:
    """Runs of one folder that differ only in the seed.

    Attributes:
        name: the shortest end of the folder's path that no other folder has. If the folder has
            several groups, the name also has the method and the number of outputs.
        runs: the run directories.
        evaluations: the rows of the table `evaluations`, from several.load_several.
    """

    name: str
    runs: Sequence[str]
    evaluations: pd.DataFrame


def groups(folders: Sequence[str]) -> list[Group]:
    """Divide the runs of some folders into groups that differ only in the seed.

    The arguments and errors are those of `compared`.
    """
    found = []
    for folder, name in zip(folders, short_names(folders), strict=True):
        evaluations = load_several(folder, "evaluations").to_pandas()
        runs: dict[tuple[Any, ...], list[str]] = {}
        for run in runs_in(folder) or [folder]:
            runs.setdefault(_apart(run), []).append(run)
        for values, rows in evaluations.groupby(_APART):
            names = [f"{key} {value}" for key, value in zip(_APART, values, strict=True)]
            label = ", ".join([name, *(names if len(runs) > 1 else ())])
            found.append(Group(label, runs[values], rows))
    return found


def compared(folders: Sequence[str]) -> pd.DataFrame:
    """Compute accuracies and bytes of runs.

    Args:
        folders: run directories, or folders of several runs; paths on this machine.

    Returns:
        The rows of several.over_seeds for each group, with more columns. `name` is the name of the
        group. `method` is the run's method. `way` is
        the way of inference, such as "one_shot H". `bytes` is the number of bytes that the first
        `num_tasks` tasks need: their states, the floats that tasks share, and the seed of the fixed
        weights. `bytes_per_task` is the size of one state.

    Raises:
        OSError: a folder has no run, or no evaluation.
        ValueError: a file of a run is damaged.
    """
    found = []
    for group in groups(folders):
        over = over_seeds(group.evaluations)
        last = group.runs[-1]
        masks, method = stored.layout(last), configuration(last)["method"]
        for way, of_way in lines(over[over["num_distractors"] == 0]):
            sizes = storage_bytes(of_way["num_tasks"].to_numpy(), masks, density=1.0)
            needed = sizes[[one for one in _NEEDED if one in sizes]].sum(axis=1)
            found.append(
                of_way.assign(
                    name=group.name,
                    method=method,
                    way=way,
                    bytes=needed.to_numpy(),
                    bytes_per_task=masks.row_bytes,
                )
            )
    return pd.concat(found, ignore_index=True)


def checkpoints(folders: Sequence[str]) -> str:
    """Return a table of text: all checkpoints of all groups, with 95 % intervals.

    Raises:
        OSError, ValueError: see `compared`.
    """
    return checkpoints_table({group.name: group.evaluations for group in groups(folders)})


def differences(folders: Sequence[str]) -> str:
    """Return a table of text: the differences of all groups from the first group.

    Raises:
        ValueError: there is one group only, or groups have different tasks.
        OSError, ValueError: see `compared`.
    """
    found = groups(folders)
    names = [group.name for group in found]
    check_same_tasks(names, [configuration(group.runs[0]) for group in found])
    return differences_table({group.name: group.evaluations for group in found})


def _apart(run: str) -> tuple[Any, ...]:
    """Return the values of a run in which the runs of one folder may differ, without the seed."""
    values = swept_values(run)
    return tuple(values[key] for key in _APART)


def short_names(folders: Sequence[str]) -> list[str]:
    """Return the shortest ends of paths that tell the paths apart, such as "a/masks"."""
    parts = [str(folder).rstrip("/").split("/") for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-length:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"folders must be different, got {', '.join(folders)}: leave out copies")


def last_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `compared` at the largest number of tasks of each line."""
    return rows.loc[rows.groupby(["name", "way"], sort=False)["num_tasks"].idxmax()]


def accuracy_and_bytes(rows: pd.DataFrame) -> Figure:
    """Draw the accuracies of runs against the number of tasks, and against bytes.

    Args:
        rows: the result of compared.

    Returns:
        A figure with a colour for each folder. Left: the accuracy against the number of tasks.
        Solid lines have the task inferred (GNu), dashed lines have the task given (GG). Right: the
        accuracy with the task given against the bytes of the largest number of tasks. Bands and
        bars are 95 % intervals of the mean over seeds by Student's t.
    """
    figure, (left, right) = panels(2)
    for i, (name, of_name) in enumerate(rows.groupby("name", sort=False)):
        color, inferred = f"C{i % 10}", of_name[of_name["algorithm"] != GIVEN]
        by_way = list(inferred.groupby("way", sort=False))
        for j, (way, of_way) in enumerate(agreeing(by_way, ["accuracy_gnu"])):
            style = {"color": color, "marker": "os^vD<>"[j % 7], "label": f"{name}, {way}"}
            _draw(left, of_way, "accuracy_gnu", style)
        given = of_name.drop_duplicates("num_tasks")
        dashed = {"linestyle": "--", "marker": "" if len(given) > 1 else "_"}
        _draw(
            left, given, "accuracy_gg", {"color": color, **dashed, "label": f"{name}, task given"}
        )
        last = given.loc[given["num_tasks"].idxmax()]
        half = np.nan_to_num(last["accuracy_gg_high"] - last["accuracy_gg"])
        at = (last["bytes"], last["accuracy_gg"])
        right.errorbar(*at, half, fmt="o", capsize=3, color=color)
    tick_checkpoints(left, rows["num_tasks"])
    tick_checkpoints(right, last_rows(rows)["bytes"], "log")
    right.margins(x=0.1)
    right.set_ylim(left.get_ylim())
    name_axes(left, "number of tasks", "accuracy")
    name_axes(right, "bytes of all tasks", "accuracy", "task given, all tasks")
    legend_below(figure)
    return figure


def _draw(axes: Axes, rows: pd.DataFrame, column: str, style: dict[str, Any]) -> None:
    ordered = rows.sort_values("num_tasks")
    x, mean = ordered["num_tasks"], ordered[column]
    axes.plot(x, mean, ms=5, **style)
    low, high = ordered[f"{column}_low"], ordered[f"{column}_high"]
    axes.fill_between(x, low, high, color=style["color"], alpha=0.15)


def table(rows: pd.DataFrame) -> str:
    """Return the last row of each line of `compared` as a table of text."""
    last = last_rows(rows)
    inferred = last["accuracy_gnu"].where(last["algorithm"] != GIVEN)
    shown = pd.DataFrame(
        {
            "run": last["name"],
            "method": last["method"],
            "inferred by": last["way"].where(last["algorithm"] != GIVEN, ""),
            "tasks": last["num_tasks"],
            "seeds": last["seeds"],
            "GG": last["accuracy_gg"].map("{:.4f}".format),
            "GNu": ["" if pd.isna(one) else f"{one:.4f}" for one in inferred],
            "bytes per task": last["bytes_per_task"],
            "bytes": last["bytes"].astype(np.int64),
        }
    )
    text: str = shown.to_string(index=False)
    return f"{text}\n{_CAPTION}"


_CAPTION = (
    "GG: accuracy with the given task. GNu: accuracy with the inferred task, but 0 for a batch\n"
    "whose inferred task is wrong. bytes: the states of all tasks, the floats that tasks share,\n"
    "and the 8 bytes of the seed from which fixed weights are made."
)


def main() -> None:
    """Draw the figure into a file, and print the table."""
    parser = Parser(__doc__, "python -m analysis.compare runs/masks runs/batche")
    parser.add_argument(
        "folders", nargs="+", type=run_directory, help="run directories, or folders of several runs"
    )
    parser.add_argument(
        "--file", type=figure_file, default=Path("comparison.svg"), help="file of the figure"
    )
    parser.add_argument(
        "--difference",
        action="store_true",
        help="also print how much each run or method differs from the first",
    )
    parser.add_argument(
        "--checkpoints",
        action="store_true",
        help="also print all checkpoints, with 95 %% intervals",
    )
    arguments = parser.parse_args()
    rows, folders = compared(arguments.folders), arguments.folders
    printed = [
        table(rows),
        *([checkpoints(folders)] if arguments.checkpoints else ()),
        *([differences(folders)] if arguments.difference else ()),
    ]
    accuracy_and_bytes(rows).savefig(arguments.file, dpi=120)
    print("\n".join([*printed, f"figure: {os.fspath(arguments.file)}"]))


if __name__ == "__main__":
    run_command(main)
