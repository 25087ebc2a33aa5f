"""Reduce tables to numbers: means, 95 % intervals and scaling exponents."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

Z = 1.959964  # the 97.5 % quantile of the normal distribution
FEWEST_SIZES, LEAST_SPAN = 4, 10  # what the fit of an exponent needs


def wilson(fractions: pd.Series, counts: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Compute 95 % intervals by Wilson's score for fractions of independent trials.

    Args:
        fractions: shares of successes, in [0, 1].
        counts: number of trials of each fraction, at least 1.

    Returns:
        The lower ends and the upper ends of the intervals.
    """
    middle = (fractions + Z**2 / (2 * counts)) / (1 + Z**2 / counts)
    spread = fractions * (1 - fractions) / counts + Z**2 / (4 * counts**2)
    half = Z * spread**0.5 / (1 + Z**2 / counts)
    return middle - half, middle + half


def bootstrap(values: ArrayLike, *, seed: int = 0, draws: int = 1000) -> tuple[float, float]:
    """Estimate the 95 % interval of a mean by drawing the values again with replacement.

    Args:
        values: independent values, at least one. Give one value per task: tasks are independent,
            because each task's test batches have an order of their own, but the batches of one
            task are not.
        seed: seed of the draws.
        draws: number of means to draw.

    Returns:
        The lower and the upper end of the interval.

    Raises:
        ValueError: there are no values.
    """
    kept = np.asarray(values, dtype=float)
    if not len(kept):
        raise ValueError("values must hold at least one value, got none: give one value per task")
    generator = np.random.default_rng(seed)
    # Draw one mean at a time: a matrix of all draws would hold draws x values numbers.
    means = [kept[generator.integers(len(kept), size=len(kept))].mean() for _ in range(draws)]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def scaling_exponent(sizes: ArrayLike, values: ArrayLike) -> float:
    """Fit b in values = a * sizes ** b by least squares on the logarithms.

    Args:
        sizes: positive numbers, such as the number of masks k.
        values: positive numbers, such as seconds; one per size.

    Returns:
        The exponent b; NaN if there are fewer than FEWEST_SIZES different sizes, or if the largest
        size is less than LEAST_SPAN times the smallest. Few or close sizes give an exponent that
        measures fixed costs and noise.
    """
    x, y = np.asarray(sizes, dtype=float), np.asarray(values, dtype=float)
    if len(np.unique(x)) < FEWEST_SIZES or x.max() < LEAST_SPAN * x.min():
        return float("nan")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


# These settings of an evaluation change what is measured. The settings `tasks_asked` and `batches`
# only change the number of tasks and batches in the sample.
SETTINGS = ["num_images", "batch_size", "log_base", "steps", "rate"]

# These columns identify a way to infer the task. The number of masks is not one of them.
WAYS = ["algorithm", "objective", "num_distractors", *SETTINGS]

# These columns identify a way to recall masks from a reservoir.
RECALL_SETTINGS = ["share", "most_steps", "batch_size"]
RESERVOIRS = ["rule", "dim", "num_blocks", "block"]
RECALL_WAYS = [*RESERVOIRS, "cue", *RECALL_SETTINGS]


def largest_samples(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Drop rows that repeat an evaluation with fewer batches.

    Args:
        evaluations: rows of the table `evaluations`. `evaluate.py` may have evaluated a task
            again, with another number of batches than the run. The larger sample contains the
            smaller one.

    Returns:
        One row per number of masks, way to infer and task: the row with the most batches. The
        order of the rows is kept.
    """
    return _largest(evaluations, ["num_tasks", *WAYS, "task_id"], ["num_batches"])


def largest_recalls(reservoir: pd.DataFrame) -> pd.DataFrame:
    """Drop rows that repeat a recall with fewer cues or fewer batches.

    Args:
        reservoir: rows of the table `reservoir`. `recall.py` may have recalled masks again. Then
            the same cues were drawn again, so the samples may not be added.

    Returns:
        One row per number of masks and way to recall: the row with the most cues, and among these
        the row with the most batches. The order of the rows is kept.
    """
    whole = reservoir.assign(batches=reservoir["batches"].fillna(np.inf))
    return reservoir.loc[
        _largest(whole, ["num_tasks", *RECALL_WAYS], ["num_cues", "batches"]).index
    ]


def _largest(rows: pd.DataFrame, keys: list[str], sizes: list[str]) -> pd.DataFrame:
    by_size = rows.sort_values(sizes, kind="stable")
    return by_size.drop_duplicates(keys, keep="last").sort_index()


def told_apart(ways: pd.DataFrame, settings: list[str]) -> list[str]:
    """Describe the settings in which the rows differ, for the legend of a figure.

    Args:
        ways: one row per way.
        settings: names of the columns that hold settings. A setting without a value is not read.

    Returns:
        One text per row, such as ", batch size: 64". It is empty if no setting differs.
    """
    differing = [name for name in settings if ways[name].nunique() > 1]
    return [
        "".join(
            f", {name.removeprefix('num_').replace('_', ' ')}: {value:g}"
            for name, value in zip(differing, row, strict=True)
            if not pd.isna(value)
        )
        for row in ways[differing].itertuples(index=False)
    ]


def main_way(
    evaluations: pd.DataFrame, algorithm: str | None = None, objective: str | None = None
) -> pd.DataFrame:
    """Choose the rows that state the result of a run: one way to infer, among the most masks.

    Args:
        evaluations: rows of the table `evaluations`, at least one of them without distractors.
        algorithm: name of the algorithm to choose, if there are rows of it.
        objective: name of the objective to choose, if the algorithm has objectives.

    Returns:
        One row per task. Of several ways that fit, the way with the most inferences is chosen.
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


def result(rows: pd.DataFrame) -> str:
    """State the result of one way to infer in a sentence.

    Args:
        rows: the result of main_way.
    """
    first = rows.iloc[0]
    by = " ".join(part for part in first[["algorithm", "objective"]] if isinstance(part, str))
    num_right = int((rows["task_accuracy"] * rows["num_batches"]).round().sum())
    return (
        f"Among {first['num_tasks']} masks, {by} infers the right task for {num_right} of "
        f"{rows['num_batches'].sum()} test batches: accuracy {rows['accuracy_gg'].mean():.4f} with "
        f"the task given (GG), {rows['accuracy_gnu'].mean():.4f} with the task inferred (GNu)."
    )


def evaluation_summary(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Average the evaluations over tasks.

    Args:
        evaluations: rows of the table `evaluations`.

    Returns:
        One row per number of masks and way to infer. `tasks` is the number of tasks. The means
        use the row with the most batches of each task. `task_accuracy` and `accuracy_gnu` also
        have the ends of a bootstrap interval, in columns ending in `_low` and `_high`.
        `seconds_per_inference` is a median, because the first inference includes compilation.
    """
    rows = []
    largest = largest_samples(evaluations)
    for key, group in largest.groupby(["num_tasks", *WAYS], dropna=False):
        row = dict(zip(["num_tasks", *WAYS], key, strict=True)) | {"tasks": len(group)}
        for column in ("task_accuracy", "accuracy_gnu"):
            low, high = bootstrap(group[column])
            row |= {column: group[column].mean(), f"{column}_low": low, f"{column}_high": high}
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
        One row per way to infer, with the number of `checkpoints` and the `exponent`. A way whose
        numbers of masks are too few or too close is left out; see scaling_exponent.
    """
    rows = []
    for key, group in summary.groupby(WAYS, dropna=False):
        exponent = scaling_exponent(group["num_tasks"], group["seconds_per_inference"])
        if np.isfinite(exponent):
            kept = dict(zip(WAYS, key, strict=True))
            rows.append(kept | {"checkpoints": len(group), "exponent": exponent})
    return pd.DataFrame(rows, columns=[*WAYS, "checkpoints", "exponent"])
