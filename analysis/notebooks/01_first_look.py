# %% [markdown]
# # A first look at a run
#
# A run leaves tables in Parquet and masks in Zarr. Here both are read: how accurate the masks
# are, how surely the right one is found among many, and what a mask is made of. `RUN_DIR` names
# the run; without it, the one that `make run` leaves is read.

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

plt.ion()  # without it Jupyter would name the figures and not show them
default = Path(analysis.__file__).parents[1] / "runs" / "mnist5k-permuted-32"
run_dir = Path(os.environ.get("RUN_DIR", default))
tasks = load(run_dir, "tasks").to_pandas()
evaluations = load(run_dir, "evaluations").to_pandas()
print(tasks[["accuracy", "loss", "density", "train_seconds"]].describe().round(4))

# %% [markdown]
# ## How accurate are the masks, each used for its own task?
#
# A row of `tasks` is a mask, and every mask uses the same weights. A task far to the left of the
# others would be worth a look: `tasks.nsmallest(5, "accuracy")`.

# %%
low, high = summary.bootstrap(tasks["accuracy"])
print(f"accuracy, mean of {len(tasks)} tasks: {tasks['accuracy'].mean():.4f}")
print(f"95 % by bootstrap over tasks: {low:.4f} to {high:.4f}")
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.set(xlabel="accuracy on the task's test images, task given", ylabel="tasks")
_ = axes.hist(tasks["accuracy"], bins=20)

# %% [markdown]
# ## And when nobody says which task it is?
#
# At a checkpoint the first k masks lie in superposition, and the task is inferred. Left, labels
# right: a solid line on the dashed one means that not knowing the task costs nothing. Right, the
# tasks themselves. An interval of no width only says that no task differed: few inferences were
# made for each.

# %%
found = summary.evaluation_summary(evaluations)
measures = ("accuracy_gnu", "task_accuracy")
columns = [name + end for name in measures for end in ("", "_low", "_high")]
print(found[["num_tasks", "algorithm", "objective", *columns]].round(4).to_string(index=False))
figures.accuracy_by_masks(evaluations)

# %% [markdown]
# ## A mask, by zarr and numpy alone
#
# A mask is a row of bytes. Each masked tensor has one plane of bits or more, one after the other.
# The first plane of a tensor says which weights are kept: its ones must be as many as the table
# says.

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
# Do masks of different tasks have more ones in common than chance would give them (the bars)?
# Masks that grew alike are harder to tell apart.

# %%
sample = stored.sample_masks(run_dir, tasks)
figures.masks_by_layer(stored.layer_statistics(sample, stored.layout(run_dir)))
