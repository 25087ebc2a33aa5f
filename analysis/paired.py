"""Paired differences of accuracies between two runs with the same tasks and seeds.

A pair is the result of one task and one seed in both runs. Both results share what is hard or easy
about the task and the seed, so the mean of the differences has a narrower interval than each mean.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.several import student_t
from analysis.summary import (
    WAYS,
    bootstrapped,
    inferred_by,
    interval,
    interval_ends,
    largest_samples,
)

MEASURES = ("accuracy_gg", "accuracy_gnu", "task_accuracy")
# Runs with equal values of these keys and of the seed have the same tasks.
TASK_KEYS = ("data", "data_options", "family", "family_options", "tasks")

_PAIR = ["num_tasks", *WAYS, "seed", "task_id"]


def paired_differences(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Compute the mean differences `other` - `one` over pairs of equal tasks and seeds.

    Args:
        one: rows of the table `evaluations` from load_several, of one method and one number of
            outputs.
        other: such rows of the other method, network or recipe.

    Returns:
        One row for each number of masks, algorithm, objective and settings that both have. `pairs`
        and `seeds` are numbers of pairs and of seeds. Each measure, such as `accuracy_gg`, has five
        columns: `accuracy_gg` is the mean difference over the pairs. `accuracy_gg_low` and
        `accuracy_gg_high` are the ends of its 95 % interval over pairs, by the bootstrap.
        `accuracy_gg_seeds_low` and `accuracy_gg_seeds_high` are the ends of the 95 % interval over
        seeds by Student's t, from one mean difference per seed; NaN for one seed. Tasks of one seed
        have the same fixed weights. So the interval over seeds is the right one if the result must
        hold for other fixed weights, and the interval over pairs is the right one for other tasks.

    Raises:
        ValueError: no row of `one` has a pair in `other`.
    """
    sides = [_by_pair(rows) for rows in (one, other)]
    common = sides[0].index.intersection(sides[1].index)
    if common.empty:
        raise ValueError(
            "runs must have evaluated the same tasks, seeds, checkpoints and algorithms, got no "
            "common row: evaluate both runs with the same options"
        )
    differences = (sides[1].loc[common] - sides[0].loc[common]).reset_index()
    by = differences.groupby(["num_tasks", *WAYS], dropna=False, sort=False)
    rows = [dict(zip(["num_tasks", *WAYS], key, strict=True)) | _means(own) for key, own in by]
    return pd.DataFrame(rows)


def _by_pair(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the measures of each pair, with the columns of _PAIR as the index."""
    return largest_samples(rows)[[*_PAIR, *MEASURES]].set_index(_PAIR)


def _means(differences: pd.DataFrame) -> dict[str, Any]:
    """Compute the mean of each measure, and its two intervals."""
    seeds = differences.groupby("seed")
    found: dict[str, Any] = {"pairs": len(differences), "seeds": seeds.ngroups}
    found |= bootstrapped(differences, *MEASURES)
    for name in MEASURES:
        of_seeds = seeds[name].mean()
        half = student_t(pd.Series([len(of_seeds)]))[0] * of_seeds.sem()
        found[f"{name}_seeds_low"] = of_seeds.mean() - half
        found[f"{name}_seeds_high"] = of_seeds.mean() + half
    return found


def check_same_tasks(names: Sequence[str], configurations: Sequence[Mapping[str, Any]]) -> None:
    """Check that the runs have the same tasks for the same seed.

    Args:
        names: a name of each run, for the error.
        configurations: the configuration of each run, a mapping from dotted key to value.

    Raises:
        ValueError: the data set, the family or the number of tasks of a run differs.
    """
    first, *others = [_of_tasks(one) for one in configurations]
    for name, own in zip(names[1:], others, strict=True):
        for key in sorted(first.keys() | own.keys()):
            if first.get(key) != own.get(key):
                raise ValueError(
                    f"{key} of {name} must be {first.get(key)} as in {names[0]}, got "
                    f"{own.get(key)}: compare runs with the same tasks, or leave out --difference"
                )


def _of_tasks(configuration: Mapping[str, Any]) -> dict[str, Any]:
    return {key: v for key, v in configuration.items() if key.split(".")[0] in TASK_KEYS}


def differences_table(groups: Mapping[str, pd.DataFrame]) -> str:
    """Return the differences of all other groups from the first group, as a table of text.

    Args:
        groups: a mapping from the name of a group to its rows; see paired_differences.

    Raises:
        ValueError: there is only one group, or two groups have no pair.
    """
    (first, base), *others = groups.items()
    if not others:
        raise ValueError(
            f"--difference must have at least two runs or methods, got {first} alone: name another "
            "folder"
        )
    shown = [row for name, rows in others for row in _shown(name, paired_differences(base, rows))]
    text: str = pd.DataFrame(shown).to_string(index=False)
    return f"differences from {first}\n{text}\n{_CAPTION}"


def _shown(name: str, found: pd.DataFrame) -> list[dict[str, Any]]:
    """Make one row of text for each way of inference, at the largest number of masks."""
    own = found[(found["num_distractors"] == 0) & (found["num_tasks"] == found["num_tasks"].max())]
    rows = []
    for row, way in zip(own.to_dict("records"), inferred_by(own), strict=True):
        rows.append(
            {
                "run": name,
                "inferred by": way,
                "tasks": row["num_tasks"],
                "pairs": row["pairs"],
                "seeds": row["seeds"],
                "GG": interval(row, "accuracy_gg", "+"),
                "GG over seeds": interval_ends(row, "accuracy_gg_seeds", "+"),
                "GNu": interval(row, "accuracy_gnu", "+") if way else "",
            }
        )
    return rows


_CAPTION = (
    "Means over pairs of equal tasks and seeds, with 95 % intervals over the pairs. GG over\n"
    "seeds: the interval of GG by Student's t, from one mean per seed. Tasks of one seed have the\n"
    "same fixed weights."
)
