"""The steps of gradient descent until a mask is found, and their figure."""

import numpy as np
import pandas as pd

from analysis.recovery import steps_until_found, wrong_bits_by_step


def descent(task_id, wrong_bits, **others):
    """Return the rows of one descent of the table `recovery`."""
    settings = {"num_tasks": 5, "rule": "storkey", "block": 8, "gradients": len(wrong_bits) - 1}
    settings |= {"batch_size": 64, "batches": None, "tasks_asked": 5, "task_id": task_id}
    rows = pd.DataFrame({"step": range(len(wrong_bits)), "wrong_bits": wrong_bits})
    accuracy = 1 - rows["wrong_bits"].map(sum) / 100
    return rows.assign(**settings | others, accuracy=accuracy, accuracy_gg=0.98)


TABLE = pd.concat(
    [
        descent(0, [[9, 8], [4, 8], [0, 0], [0, 2], [0, 0]]),
        descent(1, [[0, 0]] * 5),
        descent(2, [[9, 0], [9, 0], [0, 0], [0, 0], [3, 0]]),
    ],
    ignore_index=True,
)


def test_a_mask_is_found_after_the_last_step_with_a_wrong_bit():
    found = steps_until_found(TABLE.sample(frac=1, random_state=0))
    assert found["task_id"].to_list() == [0, 1, 2]
    assert found["found_after"].to_list()[:2] == [4, 0]
    assert np.isnan(found["found_after"][2])
    assert found["wrong_bits"].to_list() == [0, 0, 3]
    assert found["accuracy"].to_list() == [1, 1, 0.97]


def test_the_figure_shows_each_layer_and_its_mean_over_tasks():
    # The same descent with its accuracy on fewer batches, and an earlier checkpoint, are left out.
    fewer = descent(0, [[1, 1]] * 5, batches=1)
    earlier = descent(0, [[7, 7]] * 5, num_tasks=2)
    rows = pd.concat([TABLE, fewer, earlier], ignore_index=True)
    left, right = wrong_bits_by_step(rows).axes
    means = {line.get_label(): line.get_ydata() for line in left.lines if line.get_lw() == 2}
    assert list(means) == ["layer 1, storkey, 5 masks", "layer 2, storkey, 5 masks"]
    assert means["layer 1, storkey, 5 masks"].tolist() == [6, 13 / 3, 0, 0, 1]
    assert sum(line.get_lw() < 1 for line in left.lines) == 6
    recovered, stored = right.lines
    assert recovered.get_ydata()[-1] == np.mean([1, 1, 0.97])
    assert set(stored.get_ydata()) == {0.98}
