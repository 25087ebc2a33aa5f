import numpy as np
import pandas as pd
import pytest

from analysis.summary import (
    RECALL_WAYS,
    WAYS,
    bootstrap,
    evaluation_summary,
    largest_recalls,
    largest_samples,
    main_way,
    result,
    scaling_exponent,
    time_exponents,
    told_apart,
    wilson,
)

# Settings that the rows below leave out.
PLAIN = {"num_distractors": 0, "num_images": 1, "batch_size": 128, "log_base": None}
PLAIN |= {"steps": None, "rate": None}


def test_wilson_agrees_with_the_textbook_and_stays_within_0_and_1():
    low, high = wilson(pd.Series([0.0, 0.5, 1.0]), pd.Series([10, 100, 10]))
    assert list(low) == pytest.approx([0, 0.40383, 0.72247], abs=1e-4)
    assert list(high) == pytest.approx([0.27753, 0.59617, 1], abs=1e-4)


def test_bootstrap_is_near_the_normal_interval_and_the_same_again():
    values = np.random.default_rng(3).normal(2, 1, 400)
    low, high = bootstrap(values)
    assert (low, high) == bootstrap(values)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)
    assert bootstrap([0.5]) == (0.5, 0.5)
    with pytest.raises(ValueError, match="at least one value, got none"):
        bootstrap([])


def test_the_exponent_of_a_power_is_found():
    sizes = np.array([1, 2, 5, 10])
    assert scaling_exponent(sizes, 3 * sizes**1.5) == pytest.approx(1.5)


@pytest.mark.parametrize("sizes", [[5, 5], [1, 10, 100], [1, 10, 100, 100], [10, 25, 50, 99]])
def test_few_or_close_sizes_have_no_exponent(sizes):
    assert np.isnan(scaling_exponent(sizes, sizes))


def test_evaluations_come_down_to_a_row_a_size_and_way_with_the_median_of_time():
    rows = pd.DataFrame(
        {
            "num_tasks": [2, 2, 2, 4, 8, 20],
            "task_id": [0, 1, 2, 0, 0, 0],
            "num_batches": 4,
            "algorithm": "binary",
            "objective": None,  # rows without an objective are a group too
            "task_accuracy": [1.0, 0.4, 0.4, 0.5, 0.5, 0.5],
            "accuracy_gg": 0.9,
            "accuracy_gns": 0.8,
            "accuracy_gnu": 0.7,
            "bits_read_fraction": 1.0,
            "seconds_per_inference": [1.0, 99.0, 1.0, 4.0, 16.0, 100.0],
        }
    ).assign(**PLAIN)

    found = evaluation_summary(rows)

    assert found["tasks"].to_list() == [3, 1, 1, 1]
    assert found["task_accuracy"].to_list() == pytest.approx([0.6, 0.5, 0.5, 0.5])
    assert found["seconds_per_inference"].to_list() == [1.0, 4.0, 16.0, 100.0]
    assert found["task_accuracy_low"][0] <= 0.6 <= found["task_accuracy_high"][0]
    assert time_exponents(found)["exponent"].to_list() == pytest.approx([2.0])
    assert time_exponents(found[1:]).empty


def test_of_a_task_asked_twice_the_larger_sample_counts():
    rows = pd.DataFrame({"num_tasks": 2, "algorithm": "one_shot", **PLAIN}, index=range(4))
    rows = rows.assign(objective="H", task_id=[0, 1, 0, 0], num_batches=[79, 79, 4, 4])
    rows["num_distractors"] = [0, 0, 0, 9]
    assert largest_samples(rows).index.to_list() == [0, 1, 3]


@pytest.mark.parametrize(
    ("setting", "other"),
    [("num_images", 4), ("batch_size", 64), ("log_base", 4), ("steps", 20), ("rate", 0.1)],
)
def test_evaluations_with_another_setting_are_a_group_of_their_own(setting, other):
    two = pd.DataFrame({"num_tasks": 2, "task_id": [0, 1], "num_batches": 4, **PLAIN})
    two = two.assign(algorithm="gradient_descent", objective="H", task_accuracy=1.0)
    both = pd.concat([two, two.assign(**{setting: other, "task_accuracy": 0.0})])
    groups = largest_samples(both.reset_index()).groupby(WAYS, dropna=False)
    assert groups.size().to_list() == [2, 2]
    assert sorted(groups["task_accuracy"].mean()) == [0.0, 1.0]


def test_of_a_recall_made_twice_the_larger_sample_counts():
    same = dict.fromkeys(RECALL_WAYS, 1) | {"num_tasks": 4}
    rows = pd.DataFrame(
        [
            same | {"num_cues": 10, "batches": 4},
            same | {"num_cues": 30, "batches": 1},
            same | {"num_cues": 30, "batches": None},  # the whole test set
            same | {"num_cues": 5, "batches": 1, "most_steps": 9},
            same | {"num_cues": 5, "batches": 1, "batch_size": 9},
            same | {"num_cues": 5, "batches": 1, "block": 9},
        ]
    )
    found = largest_recalls(rows)
    assert found.index.to_list() == [2, 3, 4, 5]
    assert np.isnan(found["batches"].iloc[0])


def test_only_settings_that_differ_are_told():
    ways = pd.DataFrame(
        {"num_images": [1, 1], "log_base": [None, 2], "batch_size": [64, 128], "rate": [0.1, 0.3]}
    )
    assert told_apart(ways, ["num_images", "log_base", "batch_size", "rate"]) == [
        ", batch size: 64, rate: 0.1",
        ", batch size: 128, rate: 0.3",
    ]
    assert told_apart(ways[:1], ["batch_size"]) == [""]


def test_the_result_is_one_sentence_about_the_first_way_among_the_most_masks():
    rows = pd.DataFrame(
        {
            "num_tasks": [2, 9, 9, 9, 9, 12],
            "task_id": [0, 0, 1, 0, 0, 0],
            "algorithm": [*["one_shot"] * 3, "max_logit", "one_shot", "one_shot"],
            "objective": ["H", "H", "H", None, "G", "H"],
            "num_batches": [4, 4, 3, 9, 4, 4],
            "task_accuracy": [0.0, 0.75, 1 / 3, 0.0, 0.0, 0.0],
            "accuracy_gg": [0.0, 0.9, 0.8, 0.0, 0.0, 0.0],
            "accuracy_gnu": [0.0, 0.7, 0.6, 0.0, 0.0, 0.0],
        }
    ).assign(**PLAIN)
    rows.loc[5, "num_distractors"] = 3
    assert result(main_way(rows, "one_shot", "H")) == (
        "Among 9 masks, one_shot H infers the right task for 4 of 7 queries: accuracy 0.8500 with "
        "the task given (GG), 0.6500 with the task inferred (GNu)."
    )
    assert set(main_way(rows, "max_logit", "H")["algorithm"]) == {"max_logit"}
    assert set(main_way(rows)["algorithm"]) == {"max_logit"}  # most inferences


def test_the_result_counts_a_task_that_was_evaluated_twice_once():
    rows = pd.DataFrame({"num_tasks": 2, "task_id": 0, "num_batches": [4, 9], **PLAIN})
    assert main_way(rows.assign(algorithm="x", objective="H")).index.to_list() == [1]
