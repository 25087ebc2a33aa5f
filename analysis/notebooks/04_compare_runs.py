# %% [markdown]
# # Runs side by side
#
# Several runs of the same tasks, such as `train=paper` and `train=fast`. RUN_DIRS names them, with the
# separator of PATH between them.

# %%
import os

import pandas as pd

from analysis import load, summary

DEFAULT = ["runs/mnist5k-permuted-32", "runs/mnist5k-permuted-32-fast"]
run_dirs = [d for d in os.environ.get("RUN_DIRS", "").split(os.pathsep) if d] or DEFAULT

# %% [markdown]
# ## In what they differ
#
# Everything else of their configuration is the same.

# %%
differing = pd.DataFrame(load.differences(run_dirs), index=run_dirs).T
differing

# %% [markdown]
# ## Accuracy, task by task
#
# Task t of one run has the same images as task t of another with the same seed and family, so the
# difference of a pair says more than that of two means.

# %%
tasks = load.load_runs(run_dirs, "tasks").to_pandas()
paired = tasks.pivot(index="task_id", columns="run", values="accuracy")[run_dirs].dropna()
first = paired[run_dirs[0]]
rows = []
for run in run_dirs[1:]:
    difference = paired[run] - first
    low, high = summary.bootstrap(difference)
    rows.append({"run": run, "mean": difference.mean(), "low": low, "high": high})
against_first = pd.DataFrame(rows)
against_first

# %% [markdown]
# ## What it cost, and how well tasks are told apart
#
# Masks that are trained hard can grow alike: a higher accuracy with the task given is worth little where
# the task is not found any more.

# %%
tasks.groupby("run")["train_seconds"].agg(["mean", "sum"])

# %%
evaluations = load.load_runs(run_dirs, "evaluations").to_pandas()
told_apart = pd.concat(
    summary.evaluation_summary(rows).assign(run=run) for run, rows in evaluations.groupby("run")
)
keys = ["num_tasks", "algorithm", "objective"]
told_apart.pivot_table(index=keys, columns="run", values="task_accuracy", dropna=False).dropna()
