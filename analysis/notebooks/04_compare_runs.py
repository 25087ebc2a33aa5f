# %% [markdown]
# # Compare runs
#
# This notebook shows how several runs differ in their configuration and in their results.
# `RUN_DIRS` names the run directories, separated as in `PATH`. Each run is compared with the first
# run. The default is two runs: `make run` (`train=paper`) and `make run ARGS=train=fast`.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import analysis
from analysis.load import differences, load_runs
from analysis.summary import WAYS, bootstrap, largest_samples

runs = Path(analysis.__file__).parents[1] / "runs"
default = [str(runs / name) for name in ("mnist5k-permuted-32", "mnist5k-permuted-32-fast")]
run_dirs = os.environ.get("RUN_DIRS", os.pathsep.join(default)).split(os.pathsep)
tasks = load_runs(run_dirs, "tasks").to_pandas()
evaluations = load_runs(run_dirs, "evaluations").to_pandas()

# %% [markdown]
# ## Configuration
#
# The table lists only the keys that differ. If `seed`, `data` or `family` is in the table, task i
# of one run and task i of another run are different tasks. The comparisons below are then still
# valid, but less precise.

# %%
names = [Path(run).name for run in run_dirs]
told = pd.DataFrame(differences(run_dirs), index=names).T
print(told.to_string())

# %% [markdown]
# ## Accuracy with the task given
#
# Tasks are paired by their number. The interval is a bootstrap over the differences of the pairs.
# If the interval excludes 0, other tasks of this kind would show a difference too. The interval
# does not tell whether another seed of the weights would show a difference.


# %%
def compared(rows: pd.DataFrame, keys: list[str], columns: list[str]) -> pd.DataFrame:
    """Compare each run with the first: mean difference over common rows, with 95 % interval."""
    of_run = {run: part.groupby(keys)[columns].mean() for run, part in rows.groupby("run")}
    found = []
    for run, name in zip(run_dirs[1:], names[1:], strict=True):
        for column in columns:
            change = (of_run[run][column] - of_run[run_dirs[0]][column]).dropna()
            low, high = bootstrap(change)
            found.append([name, column, len(change), change.mean(), low, high])
    return pd.DataFrame(found, columns=["run", "column", "pairs", "difference", "low", "high"])


trained = compared(tasks, ["task_id"], ["accuracy", "loss", "density", "train_seconds"])
print(tasks.groupby("run", sort=False)[["accuracy", "train_seconds"]].mean().round(4).to_string())
print(trained.round(4).to_string(index=False))
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.set_ylabel("accuracy, task given")
accuracies = [tasks.loc[tasks["run"] == run, "accuracy"] for run in run_dirs]
_ = axes.boxplot(accuracies, tick_labels=names)

# %% [markdown]
# ## Accuracy with the task inferred
#
# Each way to infer is compared on its own, at the largest number of masks at which all runs were
# evaluated in the same way. A recipe that trains accurate masks may still make masks that are hard
# to tell apart. In this case `task_accuracy` is low.

# %%
evaluations = pd.concat(largest_samples(rows) for _, rows in evaluations.groupby("run"))
asked = evaluations.groupby(["num_tasks", *WAYS], dropna=False)["run"].nunique()
k = asked[asked == len(run_dirs)].index.get_level_values("num_tasks").max()
at_k = evaluations[evaluations["num_tasks"] == k]
inferred = pd.concat(
    compared(part, ["task_id"], ["task_accuracy", "accuracy_gnu"]).assign(way=str(way))
    for way, part in at_k.groupby(WAYS, dropna=False)
    if part["run"].nunique() == len(run_dirs)
)
print(f"{k} masks")
print(inferred.round(4).to_string(index=False))
