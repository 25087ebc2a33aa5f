"""Count the mistakes of a learner on a stream (scenario=nns), and draw its decisions.

The learner is not told the task. A mask belongs to the task on whose batches it trained longest.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.drawing.style import legend_below, name_axes, panels


def in_order(allocation: pd.DataFrame) -> pd.DataFrame:
    """Sort the rows of the table `allocation` by batch, and add two columns.

    Args:
        allocation: rows of the table `allocation`.

    Returns:
        The sorted rows. The column `begins` says whether the decision is the first about its task.
        The column `allocations` counts the masks after the decision.
    """
    rows = allocation.sort_values("batch", ignore_index=True)
    return rows.assign(
        begins=rows["task_id"] != rows["task_id"].shift(),
        allocations=rows["allocated"].cumsum(),
    )


def batches_per_mask(allocation: pd.DataFrame, steps: int, num_batches: int) -> pd.DataFrame:
    """Count for how many batches of each task a mask was used, and on how many it trained.

    A mask trains from its allocation until the stream first leaves it.

    Args:
        allocation: rows of the table `allocation`.
        steps: number of batches per task, train.steps.
        num_batches: number of batches that the learner has followed.

    Returns:
        One row for each pair of a task and a mask that was used for it, with the columns task_id,
        mask, used and trained.
    """
    rows = in_order(allocation[allocation["batch"] < num_batches])
    changes = rows["mask"].ne(rows["mask"].shift()) | rows["allocated"]
    # A visit is a run of decisions with the same mask. A mask trains in its first visit.
    trains = rows["allocated"].groupby(changes.cumsum()).transform("first")
    lengths = np.diff(rows["batch"], append=num_batches)
    each = pd.DataFrame(
        {
            "task_id": np.arange(num_batches) // steps,
            "mask": np.repeat(rows["mask"].to_numpy(dtype=float), lengths),
            "trained": np.repeat(trains.to_numpy(dtype=bool), lengths),
        }
    )
    grouped = each.dropna().groupby(["task_id", "mask"])["trained"]
    found = grouped.agg(used="size", trained="sum").reset_index()
    return found.astype({"mask": int})


def mistakes(allocation: pd.DataFrame, steps: int, num_tasks: int, num_committed: int) -> pd.Series:
    """Count the masks of a learner, and its mistakes.

    Args:
        allocation: rows of the table `allocation`.
        steps: number of batches per task, train.steps.
        num_tasks: number of tasks of the run.
        num_committed: number of committed masks, the rows of the table `tasks`.

    Returns:
        The numbers of `tasks` that the stream has shown, `masks` that were allocated for them,
        `false_splits` (masks that belong to a task with an earlier mask), `false_merges` (tasks for
        which the learner mostly used the mask of another task) and `skipped` tasks, for which the
        learner used no mask because its budget was used up.
    """
    rows = in_order(allocation)
    last = rows.iloc[-1]
    goes_on = bool(last["allocated"]) and int(last["mask"]) >= num_committed
    followed = int(last["batch"]) if goes_on else num_tasks * steps
    pairs = batches_per_mask(rows, steps, followed)
    seen = followed // steps
    own = pairs.sort_values(["trained", "task_id"], ascending=[False, True])
    owner = own[own["trained"] > 0].drop_duplicates("mask").set_index("mask")["task_id"]
    begun = rows[rows["allocated"] & (rows["batch"] < seen * steps)]["mask"].astype(int)
    owner = owner.loc[owner.index.isin(begun)]
    of_seen = pairs[pairs["task_id"] < seen]
    used = of_seen.sort_values(["used", "mask"], ascending=[False, True]).drop_duplicates("task_id")
    wrong = used["mask"].map(owner) != used["task_id"]
    return pd.Series(
        {
            "tasks": seen,
            "masks": len(owner),
            "false_splits": len(owner) - owner.nunique(),
            "false_merges": int(wrong.sum()),
            "skipped": seen - len(used),
        }
    )


def masks_by_task(allocation: pd.DataFrame) -> Figure:
    """Draw the number of masks and the scores of the decisions against the tasks of a stream.

    Args:
        allocation: rows of the table `allocation`.

    Returns:
        A figure. Left: the number of allocated masks. On the dashed line, each task has one mask.
        Right: the score of each decision, divided by the threshold of this decision. The first
        decision about a task should be below 1 (dotted), so that a mask is allocated. The other
        decisions should be above 1.
    """
    rows = in_order(allocation)
    figure, (left, right) = panels(2)
    shown = rows["task_id"] + 1
    left.step(shown, rows["allocations"], where="post", label="masks")
    left.plot([1, shown.max()], [1, shown.max()], "k--", label="one mask per task")
    scored = rows.dropna(subset=["score"])
    for begins, label in ((False, "later decision about a task"), (True, "first decision")):
        some = scored[scored["begins"] == begins]
        ratio = some["score"] / some["threshold"]
        right.plot(some["task_id"] + 1, ratio, "o", ms=3, alpha=0.6, label=label, rasterized=True)
    right.axhline(1, color="k", ls=":", lw=1, label="threshold")
    name_axes(left, "tasks of the stream", "masks", "allocated masks")
    name_axes(right, "tasks of the stream", "score / threshold", "decisions")
    legend_below(figure)
    return figure
