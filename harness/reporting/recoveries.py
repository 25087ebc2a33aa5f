"""The result of gradient descent on masks, as a sentence for the screen."""

from collections import defaultdict
from operator import itemgetter
from statistics import fmean

import pyarrow as pa

_SETTINGS = ("num_tasks", "rule", "block", "gradients", "batch_size", "batches", "tasks_asked")


def recovered(recovery: pa.Table) -> str:
    """Say in one sentence how well gradient descent recovers masks by the first rule.

    The sentence is about the largest checkpoint.

    Args:
        recovery: rows of the table `recovery`, in the order of the configuration.
    """
    rows = recovery.to_pylist()
    k = max(row["num_tasks"] for row in rows)
    first = next(row for row in rows if row["num_tasks"] == k)
    own = [row for row in rows if all(row[key] == first[key] for key in _SETTINGS)]
    wrong: dict[int, list[int]] = defaultdict(list)
    for row in sorted(own, key=itemgetter("step")):
        wrong[row["task_id"]].append(sum(row["wrong_bits"]))
    # The step after which no bit was wrong any more, for tasks whose mask was found.
    steps = [
        max((step for step, bits in enumerate(of_task, start=1) if bits), default=0)
        for of_task in wrong.values()
        if not of_task[-1]
    ]
    ends = [row for row in own if row["step"] == row["gradients"]]
    after = f", after {fmean(steps):.1f} gradient steps on average" if steps else ""
    return (
        f"Among {k} masks in reservoirs, {first['rule']} and gradient descent recover {len(steps)} "
        f"of {len(wrong)} masks without a wrong bit{after}: accuracy "
        f"{fmean(row['accuracy'] for row in ends):.4f} with the recovered masks, "
        f"{fmean(row['accuracy_gg'] for row in ends):.4f} with the stored masks."
    )
