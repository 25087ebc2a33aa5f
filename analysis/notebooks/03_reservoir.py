# %% [markdown]
# # Masks in a reservoir
#
# A Hopfield network stores masks in a memory of constant size. A mask is recalled from a part of
# the mask, or from images without labels. This notebook shows how many masks are recalled, how
# reliably, and how many bytes the memory takes. `RUN_DIR` names a run whose masks were recalled.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import analysis
from analysis import figures, stored, summary
from analysis.load import load

plt.ion()  # otherwise Jupyter prints the names of the figures and does not show them
default = Path(analysis.__file__).parents[1] / "runs" / "mnist5k-permuted-32"
run_dir = Path(os.environ.get("RUN_DIR", default))
try:
    reservoir = summary.largest_recalls(load(run_dir, "reservoir").to_pandas())
except FileNotFoundError as error:
    raise SystemExit(
        f"{run_dir} has no table `reservoir`: `make run ARGS=experiment=reservoir` makes a run "
        "with this table; set RUN_DIR to its directory"
    ) from error
tasks = load(run_dir, "tasks").to_pandas()

# %% [markdown]
# ## Is the exact mask recalled?
#
# `share` is the share of a cue's bits that were wrong or unknown. `exact_recall` is the share of
# masks that were recalled to the bit, with its 95 % interval by Wilson. `load` is the number of
# masks divided by the rule's capacity. This capacity comes from theory, for cues without errors:
# if cues have errors, masks may be lost at a load below 1. A mask with a few wrong bits is often
# as accurate: compare `accuracy` (recalled masks) with `accuracy_gg` (stored masks).

# %%
reservoir["load"] = reservoir["num_tasks"] / reservoir["capacity"]
low, high = summary.wilson(reservoir["exact_recall"], reservoir["num_cues"])
recalled = reservoir.assign(exact_low=low, exact_high=high)
recalled = recalled.sort_values([*summary.RECALL_WAYS, "num_tasks"])
columns = [*summary.RECALL_WAYS, "num_tasks", "load", "num_cues", "exact_recall"]
columns += ["exact_low", "exact_high", "bit_accuracy", "accuracy", "accuracy_gg"]
print(recalled[columns].round(4).to_string(index=False))
figures.recall_by_masks(reservoir)

# %% [markdown]
# ## Is the reservoir smaller than the masks?
#
# The size of the reservoir is constant; the size of the packed masks grows. `break_even` is the
# number of packed masks that take as many bytes as the reservoir. The reservoir saves bytes only
# if `break_even` is below `capacity`.

# %%
sizes = reservoir.groupby(summary.RESERVOIRS)[["capacity", "reservoir_bytes"]].max()
mask_bytes = float(tasks["mask_bytes"].mean())
sizes["break_even"] = sizes["reservoir_bytes"] / mask_bytes
print(f"bytes of a packed mask: {mask_bytes:.0f}")
print(sizes.to_string())

# %% [markdown]
# The figure compares the reservoirs with other ways to store masks, up to ten times the run's
# number of tasks. Dashed lines are sizes that do not grow.

# %%
num_masks = np.unique(np.geomspace(1, 10 * len(tasks), 40).round().astype(int))
layout, density = stored.layout(run_dir), float(tasks["density"].mean())
figures.bytes_by_masks(figures.storage_bytes(num_masks, layout, density, reservoir))
