"""Differences are computed over pairs of equal tasks and seeds."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.paired import MEASURES, check_same_tasks, differences_table, paired_differences
from analysis.summary import WAYS


def evaluations(accuracies, *, seeds=(0, 1, 2), num_batches=4, algorithm="given"):
    """Make rows of the table `evaluations` from accuracies (seeds, tasks)."""
    rows = []
    for seed, of_seed in zip(seeds, accuracies, strict=True):
        for task_id, accuracy in enumerate(of_seed):
            row = dict.fromkeys(WAYS, None) | dict.fromkeys(MEASURES, accuracy)
            row |= {"algorithm": algorithm, "num_distractors": 0, "num_tasks": len(of_seed)}
            rows.append(row | {"seed": seed, "task_id": task_id, "num_batches": num_batches})
    return pd.DataFrame(rows)


@pytest.fixture
def accuracies(rng):
    """Accuracies (seeds, tasks) of two methods. Tasks differ far more than the methods do."""
    base = rng.uniform(0.3, 0.9, (3, 8))
    return base, base + 0.02 + 0.01 * rng.standard_normal((3, 8))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_mean_and_both_intervals_are_those_of_the_differences(accuracies):
    one, other = accuracies
    (row,) = paired_differences(*map(evaluations, accuracies)).to_dict("records")
    assert (row["pairs"], row["seeds"], row["num_tasks"], row["algorithm"]) == (24, 3, 8, "given")
    for name in MEASURES:
        assert row[name] == pytest.approx((other - one).mean())
        assert 0.01 < row[f"{name}_low"] < row[name] < row[f"{name}_high"] < 0.03
    over_seeds = stats.ttest_rel(other.mean(axis=1), one.mean(axis=1)).confidence_interval()
    ends = row["accuracy_gg_seeds_low"], row["accuracy_gg_seeds_high"]
    assert ends == pytest.approx(tuple(over_seeds))


def test_only_common_pairs_count_each_with_its_largest_sample(accuracies):
    one, other = map(evaluations, accuracies)
    shuffled = other[other["seed"] != 2].sample(frac=1, random_state=0)
    smaller = shuffled.assign(num_batches=1, **dict.fromkeys(MEASURES, 0.0))
    elsewhere = evaluations([[0.0]], seeds=[7], algorithm="one_shot")
    (row,) = paired_differences(one, pd.concat([smaller, shuffled, elsewhere])).to_dict("records")
    assert row["pairs"] == 16
    assert row["accuracy_gg"] == pytest.approx((accuracies[1] - accuracies[0])[:2].mean())


def test_one_seed_has_no_interval_over_seeds():
    rows = [evaluations([values], seeds=[0]) for values in ([0.5, 0.6], [0.6, 0.8])]
    (row,) = paired_differences(*rows).to_dict("records")
    assert row["accuracy_gg"] == pytest.approx(0.15)
    assert np.isnan(row["accuracy_gg_seeds_low"])
    shown = differences_table({"a": rows[0], "b": rows[1]}).split("\n")[2]
    assert shown.split() == ["b", "2", "2", "1", "+0.1500", "(+0.1000", "to", "+0.2000)"]


def test_runs_with_other_tasks_are_refused():
    alike = {"data": "mnist", "family_options.classes": 2, "train.steps": 9}
    check_same_tasks(["a", "b"], [alike, alike | {"train.steps": 8}])
    with pytest.raises(
        ValueError, match=r"family_options\.classes of b must be 2 as in a, got 5: "
    ):
        check_same_tasks(["a", "b"], [alike, alike | {"family_options.classes": 5}])
    with pytest.raises(ValueError, match="got no common row"):
        paired_differences(evaluations([[0.5]], seeds=[0]), evaluations([[0.5]], seeds=[1]))
