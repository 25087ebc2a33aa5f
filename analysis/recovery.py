"""How gradient descent recovers masks from reservoirs and from images without labels.

Source of the figure: Figure 7 of Wortsman et al. 2020.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.drawing.style import legend_below, name_axes, panels

# Two rows with equal values in these columns are steps of descents with the same reservoirs. The
# columns `batches` and `tasks_asked` only change the size of the sample.
DESCENTS = ["num_tasks", "rule", "block", "gradients", "batch_size"]


def largest_descents(recovery: pd.DataFrame) -> pd.DataFrame:
    """Keep only one descent for each task that was recovered several times with the same settings.

    `recall.py` may have recovered masks again, with another number of batches or tasks. The descent
    whose accuracies are measured on the most batches is kept.

    Args:
        recovery: rows of the table `recovery`.

    Returns:
        The kept rows, in their order. A row is one step of one task.
    """
    ordered = recovery.assign(batches=recovery["batches"].astype(float).fillna(np.inf))
    ordered = ordered.sort_values(["batches", "tasks_asked"], kind="stable")
    kept = ordered.drop_duplicates([*DESCENTS, "task_id", "step"], keep="last").index
    return recovery.loc[sorted(kept)]


def steps_until_found(recovery: pd.DataFrame) -> pd.DataFrame:
    """Count the gradient steps until the mask of a task is found.

    Args:
        recovery: rows of the table `recovery`.

    Returns:
        One row for each descent, with the columns of DESCENTS and these columns. `task_id` is the
        task. `found_after` is the number of steps after which no bit is wrong any more; NaN if bits
        are wrong after the last step. `wrong_bits` is the number of wrong bits after the last step.
        `accuracy` and `accuracy_gg` are those after the last step.
    """
    rows = []
    for key, steps in largest_descents(recovery).groupby([*DESCENTS, "task_id"]):
        ordered = steps.sort_values("step")
        wrong = ordered["wrong_bits"].map(sum).to_numpy()
        last = ordered.iloc[-1]
        found = float(np.flatnonzero(wrong).max(initial=-1) + 1) if wrong[-1] == 0 else np.nan
        ends = {"found_after": found, "wrong_bits": int(wrong[-1])}
        ends |= {name: last[name] for name in ("accuracy", "accuracy_gg")}
        rows.append(dict(zip([*DESCENTS, "task_id"], key, strict=True)) | ends)
    return pd.DataFrame(rows)


def wrong_bits_by_step(recovery: pd.DataFrame) -> Figure:
    """Draw how masks approach the stored masks during gradient descent.

    Args:
        recovery: rows of the table `recovery`. Only rows with the most stored masks are drawn.

    Returns:
        A figure. Left: the number of bits in which the mask of a layer differs from the task's
        stored mask, against the number of gradient steps. A thin line is one task, and a thick line
        is the mean over tasks. Right: the accuracy with the mask of each step, as a mean over
        tasks. The dashed line is the accuracy with the stored masks.
    """
    figure, (left, right) = panels(2)
    rows = largest_descents(recovery)
    rows = rows[rows["num_tasks"] == rows["num_tasks"].max()]
    color = 0
    descents = list(rows.groupby(DESCENTS))
    for (num_tasks, rule, block, gradients, batch_size), of_descent in descents:
        label = f"{rule}, {num_tasks} masks"
        if len(descents) > 1:
            label += f", blocks of {block}, {gradients} steps, batch size {batch_size}"
        wrong = np.stack(of_descent["wrong_bits"].to_list())
        for layer in range(wrong.shape[1]):
            drawn = of_descent.assign(wrong=wrong[:, layer])
            by_task = drawn.pivot(index="step", columns="task_id", values="wrong")
            left.plot(by_task.index, by_task, f"C{color}-", lw=0.8, alpha=0.4)
            name = f"layer {layer + 1}, {label}"
            left.plot(by_task.index, by_task.mean(axis=1), f"C{color}-", lw=2, label=name)
            color += 1
        means = of_descent.groupby("step")[["accuracy", "accuracy_gg"]].mean()
        [line] = right.plot(means.index, means["accuracy"], lw=2, label=f"recovered, {label}")
        stored = means["accuracy_gg"]
        right.plot(stored.index, stored, "--", color=line.get_color(), label=f"stored, {label}")
    name_axes(left, "gradient steps", "wrong bits", "distance to the stored mask")
    left.set_ylim(bottom=0)
    name_axes(right, "gradient steps", "accuracy", "correct labels")
    right.set_ylim(0, 1.02)
    legend_below(figure)
    return figure
