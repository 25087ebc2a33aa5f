"""The mistakes of a learner on a stream, by hand and against the counts of the harness."""

import numpy as np
import pandas as pd
import pytest

from analysis.allocation import batches_per_mask, masks_by_task, mistakes
from harness.plan.ownership import Decided, Mistakes, matched

STEPS, EVERY = 10, 4


def table(masks, num_tasks=3):
    """The table of a stream with the given mask of each decision; None skips the batches."""
    batches = [EVERY * i for i in range(len(masks))]
    assert batches[-1] < STEPS * num_tasks <= batches[-1] + EVERY
    known: set[int] = set()
    rows = []
    for batch, mask in zip(batches, masks, strict=True):
        rows.append(
            {
                "batch": batch,
                "task_id": batch // STEPS,
                "mask": mask,
                "score": None if batch == 0 else 9.0 if mask in known else 1.0,
                "threshold": None if batch == 0 else 7.0,
                "allocated": mask is not None and mask not in known,
                "num_masks": len(known),
            }
        )
        known |= set() if mask is None else {mask}
    return pd.DataFrame(rows).astype({"mask": float})


def test_batches_are_counted_per_task_and_mask():
    # Mask 0 goes on over the boundary at batch 10. The stream leaves it at 12, and returns at 24.
    found = batches_per_mask(table([0, 0, 0, 1, 1, 1, 0, 1]), STEPS, 30)
    rows = {(one.task_id, one.mask): (one.used, one.trained) for one in found.itertuples()}
    assert rows == {
        (0, 0): (10, 10),
        (1, 0): (2, 2),
        (1, 1): (8, 8),
        (2, 1): (6, 4),
        (2, 0): (4, 0),
    }


def test_mistakes_by_hand():
    # Mask 1 is a false split of task 0. Task 1 has mask 2. Task 2 is merged with task 1.
    found = mistakes(table([0, 0, 1, 2, 2, 2, 2, 2]), STEPS, 3, 3)
    assert dict(found) == {
        "tasks": 3,
        "masks": 3,
        "false_splits": 1,
        "false_merges": 1,
        "skipped": 0,
    }
    skipped = mistakes(table([0, 0, 0, None, None, None, None, None]), STEPS, 3, 1)
    assert (skipped["masks"], skipped["false_merges"], skipped["skipped"]) == (1, 1, 1)


def test_a_stream_that_goes_on_is_counted_up_to_its_last_allocation():
    rows = table([0, 0, 0, 1, 1, 2, 2, 2]).iloc[:6]  # mask 2 is not committed yet
    found = mistakes(rows, STEPS, 3, 2)
    assert (found["tasks"], found["masks"], found["false_splits"]) == (2, 2, 0)


@pytest.mark.parametrize("seed", range(20))
def test_the_counts_are_those_of_the_harness(seed):
    rng = np.random.default_rng(seed)
    masks, num_masks = [0], 1
    for _ in range(29):
        drawn = rng.random()
        if drawn < 0.3:
            masks.append(num_masks)
            num_masks += 1
        else:
            masks.append(None if drawn < 0.4 else int(rng.integers(num_masks)))
    rows = table(masks, num_tasks=12)
    decided = [
        Decided(int(row.batch), None if np.isnan(row.mask) else int(row.mask), row.allocated)
        for row in rows.itertuples()
    ]
    wanted = vars(Mistakes.of(matched(decided, 120, STEPS)))
    found = mistakes(rows, STEPS, 12, num_masks)
    assert dict(found) == {name.removeprefix("num_"): one for name, one in wanted.items()}


def test_the_figure_separates_first_decisions_from_later_ones():
    left, right = masks_by_task(table([0, 0, 0, 1, 1, 2, 2, 2])).axes
    assert list(left.lines[0].get_ydata()) == [1, 1, 1, 2, 2, 3, 3, 3]
    drawn = {line.get_label(): list(line.get_ydata()) for line in right.lines}
    assert drawn["first decision"] == [1 / 7, 1 / 7]
    assert drawn["later decision about a task"] == [9 / 7] * 5
    assert drawn["threshold"] == [1, 1]
