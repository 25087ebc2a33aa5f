"""Compute means, 95 % intervals and scaling exponents from tables."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

MOST_DRAWN = 10**5  # values that a bootstrap draws at once; a matrix of all draws needs more memory
GIVEN = "given"  # the algorithm that infers nothing: it uses the true task
FEWEST_SIZES, LEAST_SPAN = 4, 10  # limits for the fit of an exponent; see scaling_exponent


def wilson(fractions: pd.Series, counts: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Compute the 95 % intervals of fractions of independent trials by Wilson's score.

    Args:
        fractions: fractions of trials that were successful, in [0, 1].
        counts: number of trials for each fraction, a whole number of at least 1.

    Returns:
        Two series: the lower ends and the upper ends of the intervals.
    """
    hits = (fractions * counts).round().astype(int)
    ends = [
        stats.binomtest(hit, count).proportion_ci(method="wilson")
        for hit, count in zip(hits, counts.astype(int), strict=True)
    ]
    lows, highs = [one.low for one in ends], [one.high for one in ends]
    return pd.Series(lows, fractions.index), pd.Series(highs, fractions.index)


def bootstrap(values: ArrayLike, *, seed: int = 0, draws: int = 1000) -> tuple[float, float]:
    """Estimate the 95 % interval of a mean by drawing the values again with replacement.

    Args:
        values: independent values, at least one. Give one value per task. The values of tasks are
            independent, because each task has its own order of the test images. The values of the
            batches of one task are not independent.
        seed: seed of the draws.
        draws: number of means to draw.

    Returns:
        The lower end and the upper end of the interval.

    Raises:
        ValueError: there are no values.
    """
    kept = np.asarray(values, dtype=float)
    if not len(kept):
        raise ValueError("values must hold at least one value, got none: give one value per task")
    if len(kept) == 1:  # scipy needs two values
        return float(kept[0]), float(kept[0])
    found = stats.bootstrap(
        (kept,),
        np.mean,
        n_resamples=draws,
        method="percentile",
        rng=np.random.default_rng(seed),
        batch=max(1, MOST_DRAWN // len(kept)),
    ).confidence_interval
    return float(found.low), float(found.high)


def bootstrapped(rows: pd.DataFrame, *columns: str) -> dict[str, float]:
    """Compute the mean of each column, and the ends of its 95 % interval by bootstrap.

    Returns:
        A mapping with three keys per column: the name of the column for the mean, and the name with
        `_low` and with `_high` for the ends.
    """
    found: dict[str, float] = {}
    for name in columns:
        low, high = bootstrap(rows[name])
        found |= {name: rows[name].mean(), f"{name}_low": low, f"{name}_high": high}
    return found


def scaling_exponent(sizes: ArrayLike, values: ArrayLike) -> float:
    """Fit b in values = a * sizes ** b by least squares on the logarithms.

    Args:
        sizes: positive numbers, such as the number of masks k.
        values: positive numbers, such as seconds; one per size.

    Returns:
        The exponent b; NaN if there are fewer than FEWEST_SIZES different sizes, or if the largest
        size is less than LEAST_SPAN times the smallest. In these cases, the exponent would depend
        mainly on fixed costs and noise.
    """
    x, y = np.asarray(sizes, dtype=float), np.asarray(values, dtype=float)
    if len(np.unique(x)) < FEWEST_SIZES or x.max() < LEAST_SPAN * x.min():
        return float("nan")
    return float(stats.linregress(np.log(x), np.log(y)).slope)


# These settings of an evaluation change what is measured. The other settings, `tasks_asked` and
# `batches`, only change the number of tasks and batches in the sample.
SETTINGS = ["num_images", "batch_size", "log_base", "steps", "rate"]

# Two rows with equal values in these columns infer tasks in the same way. Only their tasks and
# their numbers of masks may differ.
WAYS = ["algorithm", "objective", "num_distractors", *SETTINGS]

# Two rows with equal values in RECALL_WAYS recall masks in the same way.
RECALL_SETTINGS = ["share", "most_steps", "batch_size"]
RESERVOIRS = ["rule", "dim", "num_blocks", "block"]
RECALL_WAYS = [*RESERVOIRS, "cue", *RECALL_SETTINGS]


# The keys in which the runs of one command may differ. several.load_several adds these columns.
# The harness declares the same keys, and a test compares the two declarations.
# The name of a run's folder has the keys in this order.
SWEPT = ("method", "outputs", "seed")


def largest_samples(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Keep only the row with the most batches for each task that was evaluated several times.

    `evaluate.py` may have evaluated a task again with the same settings, but with another number
    of batches. The larger sample then contains all batches of the smaller sample.

    Args:
        evaluations: rows of the table `evaluations`, of one run or from several.load_several.

    Returns:
        One row for each combination of run, number of masks, algorithm, objective, settings and
        task. The order of the rows is kept.
    """
    of_runs = [name for name in SWEPT if name in evaluations]
    return _largest(evaluations, [*of_runs, "num_tasks", *WAYS, "task_id"], ["num_batches"])


def largest_recalls(reservoir: pd.DataFrame) -> pd.DataFrame:
    """Keep only the row with the largest sample if masks were recalled several times.

    `recall.py` may have recalled masks again with the same settings. It then used the same cues
    again, so the samples must not be added together. The largest sample is the one with the most
    cues, or, if the numbers of cues are equal, with the most batches.

    Args:
        reservoir: rows of the table `reservoir`.

    Returns:
        One row for each combination of number of masks, reservoir, cue and settings. The order of
        the rows is kept.
    """
    whole = reservoir.assign(batches=reservoir["batches"].fillna(np.inf))
    return reservoir.loc[
        _largest(whole, ["num_tasks", *RECALL_WAYS], ["num_cues", "batches"]).index
    ]


def _largest(rows: pd.DataFrame, keys: list[str], sizes: list[str]) -> pd.DataFrame:
    by_size = rows.sort_values(sizes, kind="stable")
    return by_size.drop_duplicates(keys, keep="last").sort_index()


def told_apart(ways: pd.DataFrame, settings: list[str]) -> list[str]:
    """Describe the settings in which the lines of a figure differ, for the legend of the figure.

    Args:
        ways: one row per line of the figure.
        settings: names of the columns that have settings. If a row has no value for a setting, the
            text of this row leaves out the setting.

    Returns:
        One text per row, such as ", batch size: 64". All texts are empty if no setting differs.
    """
    differing = [name for name in settings if ways[name].nunique() > 1]
    return [
        "".join(
            f", {name.removeprefix('num_').replace('_', ' ')}: {value:g}"
            for name, value in zip(differing, row, strict=True)
            if not pd.isna(value)
        )
        # Some versions of pandas yield no tuple if no column is left.
        for row in ways[differing].to_numpy(dtype=object)
    ]


def inferred_by(rows: pd.DataFrame) -> list[str]:
    """Name the way in which each row infers tasks, such as "one_shot H".

    Args:
        rows: rows with the columns WAYS. If they differ in a setting, the names tell it.

    Returns:
        One name per row, empty if the task is given.
    """
    return [
        ""
        if row.algorithm == GIVEN
        else " ".join(part for part in (row.algorithm, row.objective) if isinstance(part, str))
        + apart
        for row, apart in zip(rows.itertuples(), told_apart(rows, SETTINGS), strict=True)
    ]


def interval(row: Mapping[str, Any], name: str, sign: str = "") -> str:
    """Write the value of a column and its interval, such as "0.9591 (0.9573 to 0.9608)".

    Args:
        row: a mapping with the value and its ends; see bootstrapped.
        name: name of the value.
        sign: "+" writes the sign of positive numbers too.
    """
    return f"{row[name]:{sign}.4f} {interval_ends(row, name, sign)}"


def interval_ends(row: Mapping[str, Any], name: str, sign: str = "") -> str:
    """Write the ends of an interval; nothing if they are NaN. The arguments are as above."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "" if pd.isna(low) else f"({low:{sign}.4f} to {high:{sign}.4f})"


def main_way(
    evaluations: pd.DataFrame, algorithm: str | None = None, objective: str | None = None
) -> pd.DataFrame:
    """Choose the rows for the main result of a run: one algorithm at the largest number of masks.

    Args:
        evaluations: rows of the table `evaluations`, at least one of them without distractors.
        algorithm: name of the algorithm to choose. If no row has it, another algorithm is chosen.
        objective: name of the objective to choose. It is ignored if the algorithm needs no
            objective.

    Returns:
        One row per task, all with the same algorithm, objective and settings. If there are rows
        with several settings, the settings with the most inferences are chosen.
    """
    own = evaluations[evaluations["num_distractors"] == 0]
    largest = largest_samples(own[own["num_tasks"] == own["num_tasks"].max()])

    def fitness(rows: pd.DataFrame) -> tuple[bool, bool, int]:
        first = rows.iloc[0]
        has_objective = isinstance(first["objective"], str)
        fits = first["algorithm"] == algorithm
        return (
            fits,
            not has_objective or first["objective"] == objective,
            int(rows["num_batches"].sum()),
        )

    return max((rows for _, rows in largest.groupby(WAYS, dropna=False)), key=fitness)


def num_right(rows: pd.DataFrame) -> tuple[int, int]:
    """Count the queries whose task was inferred right, and all queries.

    A query is the images of one task from which the task is inferred.

    Args:
        rows: rows of the table `evaluations`.
    """
    right = (rows["task_accuracy"] * rows["num_batches"]).round().sum()
    return int(right), int(rows["num_batches"].sum())


def result(rows: pd.DataFrame) -> str:
    """Say in one sentence how well an algorithm infers the tasks of a run.

    Args:
        rows: the result of main_way.
    """
    first = rows.iloc[0]
    if first["algorithm"] == GIVEN:
        return (
            f"After {first['num_tasks']} tasks, the accuracy with the task given (GG) is "
            f"{rows['accuracy_gg'].mean():.4f}."
        )
    [by] = inferred_by(rows.iloc[:1])
    right, asked = num_right(rows)
    return (
        f"Among {first['num_tasks']} masks, {by} infers the right task for {right:,} of {asked:,} "
        f"queries: accuracy {rows['accuracy_gg'].mean():.4f} with the task given (GG), "
        f"{rows['accuracy_gnu'].mean():.4f} with the task inferred (GNu)."
    )


def evaluation_summary(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Average the rows of the table `evaluations` over tasks.

    If a task was evaluated several times, only the row with the most batches is used.

    Args:
        evaluations: rows of the table `evaluations`.

    Returns:
        One row for each combination of number of masks, algorithm, objective and settings. `tasks`
        is the number of tasks. For `task_accuracy` and `accuracy_gnu`, the columns that end in
        `_low` and `_high` have the ends of the 95 % interval by bootstrap. `seconds_per_inference`
        is a median, because the first inference includes compilation.
    """
    rows = []
    largest = largest_samples(evaluations)
    for key, group in largest.groupby(["num_tasks", *WAYS], dropna=False):
        row = dict(zip(["num_tasks", *WAYS], key, strict=True)) | {"tasks": len(group)}
        row |= bootstrapped(group, "task_accuracy", "accuracy_gnu")
        for column in ("accuracy_gg", "accuracy_gns", "bits_read_fraction"):
            row[column] = group[column].mean()
        row["seconds_per_inference"] = group["seconds_per_inference"].median()
        rows.append(row)
    return pd.DataFrame(rows)


def time_exponents(summary: pd.DataFrame) -> pd.DataFrame:
    """Fit how the time of an inference grows with the number of masks.

    Args:
        summary: the result of evaluation_summary.

    Returns:
        One row for each combination of algorithm, objective and settings. The column `checkpoints`
        is the number of checkpoints, and `exponent` is the exponent b in seconds = a * masks ** b.
        A row is left out if its checkpoints are too few or too close for a fit; see
        scaling_exponent.
    """
    rows = []
    for key, group in summary.groupby(WAYS, dropna=False):
        exponent = scaling_exponent(group["num_tasks"], group["seconds_per_inference"])
        if np.isfinite(exponent):
            kept = dict(zip(WAYS, key, strict=True))
            rows.append(kept | {"checkpoints": len(group), "exponent": exponent})
    return pd.DataFrame(rows, columns=[*WAYS, "checkpoints", "exponent"])
