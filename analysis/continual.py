"""The measures of continual learning: average accuracy, forgetting and backward transfer.

a(k, j) is the accuracy on task j after k tasks. With the task given, a mask never changes, so
a(k, j) does not depend on k, and forgetting is 0 by construction. With the task inferred,
forgetting is what inference loses as the number of masks grows.

Forward transfer is not defined here: it needs the accuracy on a task before the task is trained,
and a task without a mask has none.

Sources: Lopez-Paz & Ranzato 2017, "Gradient Episodic Memory" (average accuracy, backward transfer);
Chaudhry et al. 2018, "Riemannian Walk for Incremental Learning" (forgetting).
"""

import pandas as pd

from analysis.summary import WAYS, largest_samples

COLUMNS = ["average_accuracy", "tasks", "forgetting", "backward_transfer", "earlier_tasks"]


def continual_measures(evaluations: pd.DataFrame, accuracy: str = "accuracy_gnu") -> pd.DataFrame:
    """Compute the measures at each checkpoint.

    A run measures a task only at its checkpoints, and there perhaps only some of the tasks. So the
    first measurement of a task stands for the measurement directly after its training.

    Args:
        evaluations: rows of the table `evaluations`.
        accuracy: the column of the accuracy: accuracy_gnu or accuracy_gns with the task inferred,
            accuracy_gg with the task given.

    Returns:
        One row for each combination of number of masks, algorithm, objective and settings.
        `average_accuracy` is the mean of a(k, j) over the `tasks` measured tasks. The other
        measures are means over the `earlier_tasks` that were also measured at an earlier
        checkpoint, and NaN if there are none. `forgetting` is the largest earlier a(l, j) minus
        a(k, j). `backward_transfer` is a(k, j) minus the first a(l, j).
    """
    rows = []
    for way, group in largest_samples(evaluations).groupby(WAYS, dropna=False):
        ordered = group.sort_values("num_tasks", kind="stable")
        by_task = ordered.groupby("task_id")[accuracy]
        measured = ordered.assign(
            first=by_task.transform("first"),
            best=by_task.transform(lambda values: values.cummax().shift()),
        )
        for num_tasks, now in measured.groupby("num_tasks"):
            earlier = now[now["best"].notna()]
            rows.append(
                {
                    "num_tasks": num_tasks,
                    **dict(zip(WAYS, way, strict=True)),
                    "average_accuracy": now[accuracy].mean(),
                    "tasks": len(now),
                    "forgetting": (earlier["best"] - earlier[accuracy]).mean(),
                    "backward_transfer": (earlier[accuracy] - earlier["first"]).mean(),
                    "earlier_tasks": len(earlier),
                }
            )
    found = pd.DataFrame(rows, columns=["num_tasks", *WAYS, *COLUMNS])
    return found.sort_values("num_tasks", kind="stable", ignore_index=True)
