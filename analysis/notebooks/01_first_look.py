# %% [markdown]
# # A first look at a run
#
# A run leaves tables in Parquet and masks in Zarr. This notebook reads both. It shows how accurate
# the masks are, how often the right task is inferred, and what a mask looks like. `RUN_DIR` names
# the run directory. The default is the run of `make run`.

# %%
import os
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import zarr

import analysis
from analysis import figures, stored, summary
from analysis.load import load

plt.ion()  # otherwise Jupyter prints the names of the figures and does not show them
default = Path(analysis.__file__).parents[1] / "runs" / "mnist5k-permuted-32"
run_dir = Path(os.environ.get("RUN_DIR", default))
tasks = load(run_dir, "tasks").to_pandas()
evaluations = load(run_dir, "evaluations").to_pandas()
print(tasks[["accuracy", "loss", "density", "train_seconds"]].describe().round(4))

# %% [markdown]
# ## How accurate are the masks, each used for its own task?
#
# Each row of `tasks` describes one mask, and all masks use the same weights. If a task is far to
# the left of the others, look it up with `tasks.nsmallest(5, "accuracy")`.

# %%
low, high = summary.bootstrap(tasks["accuracy"])
print(f"mean accuracy of {len(tasks)} tasks: {tasks['accuracy'].mean():.4f}")
print(f"95 % interval by bootstrap over tasks: {low:.4f} to {high:.4f}")
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.set(xlabel="accuracy on the task's test images, task given", ylabel="tasks")
_ = axes.hist(tasks["accuracy"], bins=20)

# %% [markdown]
# ## How accurate are the masks if the task is inferred?
#
# At a checkpoint the first k masks are in superposition, and the task is inferred. The left panel
# shows the accuracy of the labels. If a solid line lies on the dashed line, inferring the task
# costs no accuracy. The right panel shows the task accuracy. An interval of zero width only means
# that all tasks gave the same value. This happens because each task had few inferences.

# %%
found = summary.evaluation_summary(evaluations)
measures = ("accuracy_gnu", "task_accuracy")
columns = [name + end for name in measures for end in ("", "_low", "_high")]
print(found[["num_tasks", "algorithm", "objective", *columns]].round(4).to_string(index=False))
figures.accuracy_by_masks(evaluations)

# %% [markdown]
# ## A mask, read with zarr (version 3 or newer) and numpy alone
#
# A mask is a row of bytes. In this row, each masked tensor has one or more planes of bits. The
# first plane of a tensor says which weights are kept. The share of ones in these first planes must
# equal the density in the table.

# %%
store: Any = zarr.open_group(run_dir / "masks.zarr", mode="r")
last = tasks.loc[tasks["task_id"].idxmax()]
row = store["masks"][int(last["task_id"])]
bits: dict[str, np.ndarray] = {}
for plane in store.attrs["planes"]:
    packed = row[plane["byte_offset"] :]
    of_plane = np.unpackbits(packed, count=plane["num_bits"], bitorder="little")
    bits.setdefault(plane["tensor"], of_plane)
for name, kept in bits.items():
    print(f"{name}: {kept.sum():,} ones of {kept.size:,} bits")
density = np.concatenate(list(bits.values())).mean()
print(f"task {last['task_id']}: density {density:.6f}, in the table {last['density']:.6f}")

# %% [markdown]
# Do masks of different tasks share more ones than independent masks would share (the horizontal
# bars)? Similar masks are harder to tell apart.

# %%
sample = stored.sample_masks(run_dir, tasks)
figures.masks_by_layer(stored.layer_statistics(sample, stored.layout(run_dir)))
