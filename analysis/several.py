"""Read the runs of one folder, such as RUN_DIR/seed-0 and seed-1, and average over seeds."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow.fs import FileSelector, FileType
from scipy.stats import t

from analysis.load import configuration, file_system, load
from analysis.summary import SETTINGS, SWEPT, WAYS, largest_samples, told_apart

MEASURES = ("task_accuracy", "accuracy_gg", "accuracy_gns", "accuracy_gnu")
CONFIDENCE = 0.95  # of the intervals

_FORMS = {"method": ".+?", "outputs": "[0-9]+", "seed": "[0-9]+"}  # regular expressions
_FOLDER = re.compile("".join(f"((^|-){key}-(?P<{key}>{_FORMS[key]}))?" for key in SWEPT))


def runs_in(folder: str | Path) -> list[str]:
    """List the run directories in a folder of several runs.

    Args:
        folder: a path or a URL.

    Returns:
        The paths or URLs of the runs, in the order of their methods and numbers. [] if the folder
        has no such runs, or is itself the folder of a run.

    Raises:
        ValueError, OSError: see analysis.load.load.
    """
    files, root = file_system(folder)
    if files.get_file_info(f"{root}/config.yaml").type == FileType.File:
        return []
    found = []
    for one in files.get_file_info(FileSelector(root, allow_not_found=True)):
        values = _values_in(one.base_name)
        config = f"{root}/{one.base_name}/config.yaml"
        if values and files.get_file_info(config).type == FileType.File:
            order = [(int(text), "") if text.isdecimal() else (0, text) for text in values.values()]
            found.append((len(order), order, f"{str(folder).rstrip('/')}/{one.base_name}"))
    return [path for _, _, path in sorted(found)]


def _values_in(name: str) -> dict[str, str]:
    """Return the values in a folder's name, such as {"seed": "1"}; {} for another folder."""
    found = _FOLDER.fullmatch(name)
    values = found.groupdict() if found else {}
    return {key: value for key, value in values.items() if value is not None}


def swept_values(run_dir: str | Path) -> dict[str, Any]:
    """Return the values of a run for the keys in which the runs of a folder may differ.

    Returns:
        A mapping from each key of SWEPT to the value. The method has its options, such as
        "edge_popup_density0.3", if the folder's name has them.

    Raises:
        OSError, ValueError: see analysis.load.configuration.
    """
    config = configuration(run_dir)
    named = _values_in(str(run_dir).rstrip("/").rpartition("/")[2])
    return {
        **{key: config[key] for key in SWEPT},
        "method": named.get("method", config["method"]),
    }


def load_several(folder: str | Path, table: str) -> pa.Table:
    """Read one table of all runs in a folder.

    Args:
        folder: a path or a URL: the folder of several runs, or the run directory of one run.
        table: a key of analysis.load.FOLDERS.

    Returns:
        The rows of all runs that have written this table. The first columns `method`, `outputs` and
        `seed` have the values of the rows' runs.

    Raises:
        KeyError, ValueError, OSError: see analysis.load.load.
        FileNotFoundError: no run has written a file of this table yet.
    """
    parts = []
    for run_dir in runs_in(folder) or [str(folder)]:
        try:
            rows = load(run_dir, table)
        except FileNotFoundError:
            continue
        values = swept_values(run_dir)
        rows = rows.drop_columns([key for key in SWEPT if key in rows.column_names])
        for key in reversed(SWEPT):
            # Seeds may need all 64 bits.
            kind = pa.string() if key == "method" else pa.uint64()
            rows = rows.add_column(0, key, pa.repeat(pa.scalar(values[key], kind), len(rows)))
        parts.append(rows)
    if not parts:
        raise FileNotFoundError(
            f"{folder} must have a run with the table {table}, got none: check the path, and that "
            "a run has written this table"
        )
    return pa.concat_tables(parts)


def over_seeds(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Average task accuracy and accuracy over seeds, with 95 % intervals by Student's t.

    The value of a run is its mean over tasks. The runs are independent, because each seed has its
    own weights, tasks and batches. The intervals assume that the values of runs are normally
    distributed. They show how much results differ from seed to seed. The intervals of
    `summary.evaluation_summary` show how much results differ from task to task in one run.

    Args:
        evaluations: rows of the table `evaluations`, from load_several.

    Returns:
        One row for each combination of method, outputs, number of masks, algorithm, objective and
        settings. `seeds` is the number of runs. Each measure, such as `accuracy_gnu`, has four
        columns: `accuracy_gnu` is the mean of the runs' values, `accuracy_gnu_std` is their
        standard deviation (with the divisor seeds - 1), and `accuracy_gnu_low` and
        `accuracy_gnu_high` are the ends of the mean's interval. For one seed, the last three are
        NaN.
    """
    measures, by = list(MEASURES), ["method", "outputs", "num_tasks", *WAYS]
    by_run = largest_samples(evaluations).groupby([*by, "seed"], dropna=False)
    of_runs = by_run[measures].mean().reset_index()
    grouped = of_runs.groupby(by, dropna=False)
    found = grouped[measures].mean()
    found.insert(0, "seeds", grouped.size())
    for name in measures:
        std = grouped[name].std()
        half = student_t(found["seeds"]) * std / found["seeds"] ** 0.5
        found[f"{name}_std"] = std
        found[f"{name}_low"], found[f"{name}_high"] = found[name] - half, found[name] + half
    return found.reset_index()


def student_t(counts: pd.Series) -> np.ndarray:
    """Return the quantile of Student's t for the interval of a mean of `counts` values.

    A quantile is NaN if the count is 1.
    """
    degrees = counts.to_numpy(dtype=float) - 1
    quantiles: np.ndarray = t.ppf((1 + CONFIDENCE) / 2, np.where(degrees > 0, degrees, np.nan))
    return quantiles


def lines(over: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Divide rows of over_seeds into the lines of a figure.

    Returns:
        One pair per line: its label, such as "one_shot H", and its rows. All rows of a line have
        the same method, algorithm, objective and settings. If there are several methods, the label
        begins with the method.
    """
    by = ["method", *WAYS]
    found = list(over.groupby(by, dropna=False))
    firsts = pd.DataFrame([key for key, _ in found], columns=by)
    has_one_method = over["method"].nunique() == 1
    labels = []
    for way, apart in zip(firsts.itertuples(), told_apart(firsts, SETTINGS), strict=True):
        objective = f" {way.objective}" if isinstance(way.objective, str) else ""
        beside = f" + {way.num_distractors} untrained masks" if way.num_distractors else ""
        method = "" if has_one_method else f"{way.method}: "
        labels.append(f"{method}{way.algorithm}{objective}{beside}{apart}")
    return [(label, rows) for label, (_, rows) in zip(labels, found, strict=True)]
