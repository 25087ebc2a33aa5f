"""Average accuracy, forgetting and backward transfer of small tables by hand."""

import numpy as np
import pandas as pd
import pytest

from analysis.continual import continual_measures

PLAIN = {
    "algorithm": "one_shot",
    "objective": "H",
    "num_distractors": 0,
    "num_images": 1,
    "batch_size": 128,
    "log_base": None,
    "steps": None,
    "rate": None,
    "num_batches": 10,
}


def rows(*found):
    return pd.DataFrame(
        [
            PLAIN | {"num_tasks": k, "task_id": j, "accuracy_gnu": a, "accuracy_gg": 0.9}
            for k, j, a in found
        ]
    )


def test_measures_by_hand():
    table = rows(
        *[(1, 0, 0.9)],
        *[(2, 0, 0.8), (2, 1, 0.7)],
        *[(3, 0, 0.85), (3, 1, 0.9), (3, 2, 0.6)],
    )
    found = continual_measures(table.sample(frac=1, random_state=0)).set_index("num_tasks")
    assert found["average_accuracy"].to_list() == pytest.approx([0.9, 0.75, 2.35 / 3])
    assert found["tasks"].to_list() == [1, 2, 3]
    assert found["earlier_tasks"].to_list() == [0, 1, 2]
    assert np.isnan(found["forgetting"][1])
    assert found["forgetting"][2] == pytest.approx(0.1)
    # Task 0: 0.9 at best, now 0.85. Task 1: 0.7 at best before, now 0.9.
    assert found["forgetting"][3] == pytest.approx((0.05 - 0.2) / 2)
    assert found["backward_transfer"][3] == pytest.approx((-0.05 + 0.2) / 2)


def test_masks_forget_nothing_if_the_task_is_given():
    table = rows((1, 0, 0.9), (2, 0, 0.8), (2, 1, 0.7))
    found = continual_measures(table, "accuracy_gg")
    assert found["forgetting"].to_list()[1:] == [0.0]
    assert found["backward_transfer"].to_list()[1:] == [0.0]


def test_tasks_that_were_measured_once_only_count_for_the_average():
    found = continual_measures(rows((2, 0, 0.8), (4, 3, 0.6)))
    assert found["average_accuracy"].to_list() == [0.8, 0.6]
    assert found["earlier_tasks"].to_list() == [0, 0]
    assert found["forgetting"].isna().all()


def test_ways_to_infer_are_apart():
    first, second = rows((1, 0, 0.9), (2, 0, 0.5)), rows((1, 0, 0.4), (2, 0, 0.4))
    found = continual_measures(pd.concat([first, second.assign(algorithm="binary")]))
    forgotten = found[found["num_tasks"] == 2].set_index("algorithm")["forgetting"]
    assert forgotten.to_dict() == pytest.approx({"one_shot": 0.4, "binary": 0.0})
