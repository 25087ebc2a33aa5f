"""Numbers that tables come down to: means, their 95 % intervals, and scaling exponents."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

Z = 1.959964  # a normal's 97.5 % point


def wilson(fractions: pd.Series, counts: pd.Series) -> tuple[pd.Series, pd.Series]:
    """95 % intervals of fractions of independent trials.

    Args:
        fractions: in [0, 1].
        counts: the trials behind each, at least 1.

    Returns:
        The lower and the upper ends.
    """
    middle = (fractions + Z**2 / (2 * counts)) / (1 + Z**2 / counts)
    spread = fractions * (1 - fractions) / counts + Z**2 / (4 * counts**2)
    half = Z * spread**0.5 / (1 + Z**2 / counts)
    return middle - half, middle + half


def bootstrap(values: ArrayLike, *, seed: int = 0, draws: int = 1000) -> tuple[float, float]:
    """The 95 % interval of a mean, by drawing the values again with replacement.

    Args:
        values: independent, at least one; a task's, for the batches of a task are not.
        seed: of the draws.
        draws: how many means are drawn.

    Returns:
        The lower and the upper end.

    Raises:
        ValueError: no values.
    """
    kept = np.asarray(values, dtype=float)
    if not len(kept):
        raise ValueError("values must hold at least one value, got none")
    generator = np.random.default_rng(seed)
    # Means one by one: a matrix of all draws would hold draws x values numbers.
    means = [kept[generator.integers(len(kept), size=len(kept))].mean() for _ in range(draws)]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def scaling_exponent(sizes: ArrayLike, values: ArrayLike) -> float:
    """The b of values = a * sizes ** b, by least squares on the logarithms.

    Args:
        sizes: positive, such as k.
        values: positive, such as seconds.

    Returns:
        The slope; NaN from fewer than two different sizes.
    """
    x, y = np.log(np.asarray(sizes, dtype=float)), np.log(np.asarray(values, dtype=float))
    if len(np.unique(x)) < 2:
        return float("nan")
    return float(np.polyfit(x, y, 1)[0])


# What sets one way to infer apart from another, at one number of masks.
WAYS = ["algorithm", "objective", "num_images", "num_distractors"]


def largest_samples(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Of what was asked twice of a task, the row with more batches.

    Args:
        evaluations: rows of the table `evaluations`; `evaluate.py` may have added some with
            another sample than the run's own.

    Returns:
        One row for each number of masks, way to infer and task, in the order given.
    """
    by_size = evaluations.sort_values("num_batches", kind="stable")
    kept = by_size.drop_duplicates(["num_tasks", *WAYS, "task_id"], keep="last")
    return kept.sort_index()


def evaluation_summary(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Evaluations, a row for each number of masks and way to infer.

    Args:
        evaluations: rows of the table `evaluations`.

    Returns:
        The keys, tasks, and means over tasks, each of its largest sample; task_accuracy and
        accuracy_gnu with the ends of their interval by bootstrap; seconds as a median, for a
        first inference compiles.
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
    """How the time of an inference grows with the masks, for each way to infer.

    Args:
        summary: of evaluation_summary.

    Returns:
        The keys, checkpoints and exponent; ways seen at one number of masks are left out.
    """
    rows = []
    for key, group in summary.groupby(WAYS, dropna=False):
        exponent = scaling_exponent(group["num_tasks"], group["seconds_per_inference"])
        if np.isfinite(exponent):
            kept = dict(zip(WAYS, key, strict=True))
            rows.append(kept | {"checkpoints": len(group), "exponent": exponent})
    return pd.DataFrame(rows, columns=[*WAYS, "checkpoints", "exponent"])
