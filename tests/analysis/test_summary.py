import numpy as np
import pandas as pd
import pytest

from analysis.summary import (
    bootstrap,
    evaluation_summary,
    largest_samples,
    scaling_exponent,
    time_exponents,
    wilson,
)


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
    sizes = np.array([1, 10, 100])
    assert scaling_exponent(sizes, 3 * sizes**1.5) == pytest.approx(1.5)
    assert np.isnan(scaling_exponent([5, 5], [1, 2]))


def test_evaluations_come_down_to_a_row_a_size_and_way_with_the_median_of_time():
    rows = pd.DataFrame(
        {
            "num_tasks": [2, 2, 2, 4],
            "task_id": [0, 1, 2, 0],
            "num_batches": [4] * 4,
            "num_distractors": [0] * 4,
            "algorithm": ["binary"] * 4,
            "objective": [None] * 4,  # rows without an objective are a group too
            "num_images": [1] * 4,
            "task_accuracy": [1.0, 0.4, 0.4, 0.5],
            "accuracy_gg": [0.9] * 4,
            "accuracy_gns": [0.8] * 4,
            "accuracy_gnu": [0.7] * 4,
            "bits_read_fraction": [1.0] * 4,
            "seconds_per_inference": [1.0, 99.0, 1.0, 4.0],
        }
    )

    found = evaluation_summary(rows)

    assert found["tasks"].to_list() == [3, 1]
    assert found["task_accuracy"].to_list() == pytest.approx([0.6, 0.5])
    assert found["seconds_per_inference"].to_list() == [1.0, 4.0]
    assert found["task_accuracy_low"][0] <= 0.6 <= found["task_accuracy_high"][0]
    assert time_exponents(found)["exponent"].to_list() == pytest.approx([2.0])


def test_of_a_task_asked_twice_the_larger_sample_counts():
    rows = pd.DataFrame(
        {
            "num_tasks": [2, 2, 2, 2],
            "num_distractors": [0, 0, 0, 9],
            "algorithm": ["one_shot"] * 4,
            "objective": ["H"] * 4,
            "num_images": [1] * 4,
            "task_id": [0, 1, 0, 0],
            "num_batches": [79, 79, 4, 4],
        }
    )
    assert largest_samples(rows).index.to_list() == [0, 1, 3]
