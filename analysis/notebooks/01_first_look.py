# %% [markdown]
# # A first look at a run
#
# `make run` leaves one in `runs/mnist5k-permuted-32`; the variable RUN_DIR names another.

# %%
import os

import numpy as np
import zarr

from analysis import figures, load, summary

RUN_DIR = os.environ.get("RUN_DIR", "runs/mnist5k-permuted-32")
{key: load.configuration(RUN_DIR)[key] for key in ("tasks", "data", "family", "network", "seed")}

# %% [markdown]
# ## The tasks
#
# A row for each mask: its accuracy on its own task's test images, the task given. Tasks of one family
# should lie close together; one that stands apart is worth a look.

# %%
tasks = load.load(RUN_DIR, "tasks").to_pandas().set_index("task_id").sort_index()
tasks[["accuracy", "loss", "density", "train_seconds"]].describe()

# %%
low, high = summary.bootstrap(tasks["accuracy"])
print(f"accuracy {tasks['accuracy'].mean():.4f} ({low:.4f} to {high:.4f}), {len(tasks)} tasks")

# %% [markdown]
# ## Told apart
#
# Left: how many labels are right when the task is inferred (a wrong task counts as wrong), and dashed
# when it is given. Where the lines meet, not knowing the task costs nothing. Right: how many tasks were
# inferred right.

# %%
evaluations = load.load(RUN_DIR, "evaluations").to_pandas()
figures.accuracy_by_masks(evaluations)

# %%
means = summary.evaluation_summary(evaluations)
means[["num_tasks", "algorithm", "objective", "task_accuracy", "accuracy_gg", "accuracy_gnu"]]

# %% [markdown]
# ## One mask, by zarr alone
#
# Bits of a row are little-endian, layer after layer, each from its `byte_offset` on.

# %%
store = zarr.open_group(f"{RUN_DIR}/masks.zarr", mode="r")
task_id = int(tasks.index[0])
row, densities = store["masks"][task_id], {}
for layer in store.attrs["layers"]:
    bits = np.unpackbits(row[layer["byte_offset"] :], bitorder="little")[: layer["num_bits"]]
    densities[layer["name"]] = float(bits.mean())
densities
