# %% [markdown]
# # Runs side by side
#
# What differs in what they were told, and what in what they found? `RUN_DIRS` names the runs, the
# first to compare the others with, separated as in `PATH`. Without it these are the run of
# `make run` (`train=paper`) and that of `make run ARGS=train=fast`.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import analysis
from analysis.load import differences, load_runs
from analysis.summary import bootstrap

runs = Path(analysis.__file__).parents[1] / "runs"
default = [str(runs / name) for name in ("mnist5k-permuted-32", "mnist5k-permuted-32-fast")]
run_dirs = os.environ.get("RUN_DIRS", os.pathsep.join(default)).split(os.pathsep)
tasks = load_runs(run_dirs, "tasks").to_pandas()
evaluations = load_runs(run_dirs, "evaluations").to_pandas()

# %% [markdown]
# ## What they were told
#
# Only keys that differ. If `seed`, `data` or `family` are among them, a task of one run is not the
# task of that number in the other, and the pairs below are of strangers: still right, less sharp.

# %%
names = [Path(run).name for run in run_dirs]
told = pd.DataFrame(differences(run_dirs), index=names).T
print(told.to_string())

# %% [markdown]
# ## Accuracy with the task given
#
# Tasks are paired by their number, and what the pairs differ by is drawn again and again. An
# interval without 0 is a difference that other tasks of this kind would show too; another seed of
# the weights is another question.


# %%
def compared(rows: pd.DataFrame, keys: list[str], columns: list[str]) -> pd.DataFrame:
    """Each run's mean minus the first one's over the rows that both have, with 95 %."""
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
# For each way to infer, at the largest number of masks at which all runs were asked in the same
# way. A recipe that trains well may still make masks that are hard to tell apart: that would show
# in `task_accuracy`.

# %%
ways = ["algorithm", "objective", "num_images", "num_distractors"]
asked = evaluations.groupby(["num_tasks", *ways], dropna=False)["run"].nunique()
k = asked[asked == len(run_dirs)].index.get_level_values("num_tasks").max()
at_k = evaluations[evaluations["num_tasks"] == k]
inferred = pd.concat(
    compared(part, ["task_id"], ["task_accuracy", "accuracy_gnu"]).assign(way=str(way))
    for way, part in at_k.groupby(ways, dropna=False)
    if part["run"].nunique() == len(run_dirs)
)
print(f"{k} masks")
print(inferred.round(4).to_string(index=False))
