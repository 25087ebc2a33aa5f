# %% [markdown]
# # Masks in a reservoir
#
# A Hopfield network holds masks in a memory of constant size, and one comes back from a part of
# it, or from images without labels. How many, how surely, and at what price in bytes? `RUN_DIR`
# names a run whose masks were recalled.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import analysis
from analysis import figures, stored, summary
from analysis.load import load

plt.ion()  # without it Jupyter would name the figures and not show them
default = Path(analysis.__file__).parents[1] / "runs" / "mnist5k-permuted-32"
run_dir = Path(os.environ.get("RUN_DIR", default))
try:
    reservoir = load(run_dir, "reservoir").to_pandas()
except FileNotFoundError as error:
    raise SystemExit(
        f"{run_dir} has no table `reservoir`: `make run ARGS=experiment=reservoir` makes a run "
        "that has one; set RUN_DIR to it"
    ) from error
tasks = load(run_dir, "tasks").to_pandas()

# %% [markdown]
# ## Does the very mask come back?
#
# `share` is how much of a cue was wrong or unknown, `exact_recall` the share of masks that came
# back to the bit, with its 95 % interval by Wilson. `load` is how much of the rule's capacity is
# taken, by theory and for cues without an error: with errors, masks may be lost below 1. One with
# a few bits wrong often serves all the same: compare `accuracy` with `accuracy_gg`, that of the
# masks that were stored.

# %%
reservoir["load"] = reservoir["num_tasks"] / reservoir["capacity"]
low, high = summary.wilson(reservoir["exact_recall"], reservoir["num_cues"])
recalled = reservoir.assign(exact_low=low, exact_high=high)
recalled = recalled.sort_values(["rule", "cue", "share", "num_tasks"])
columns = ["rule", "cue", "share", "num_tasks", "load", "num_cues", "exact_recall"]
columns += ["exact_low", "exact_high", "bit_accuracy", "accuracy", "accuracy_gg"]
print(recalled[columns].round(4).to_string(index=False))
figures.recall_by_masks(reservoir)

# %% [markdown]
# ## Is it smaller than the masks?
#
# The reservoir's bytes stay as they are, the masks' grow. `break_even` is how many packed masks
# take as many bytes as the reservoir. It pays only where that is below `capacity`.

# %%
sizes = reservoir.groupby("rule")[["dim", "num_blocks", "capacity", "reservoir_bytes"]].max()
mask_bytes = float(tasks["mask_bytes"].mean())
sizes["break_even"] = sizes["reservoir_bytes"] / mask_bytes
print(f"bytes of a packed mask: {mask_bytes:.0f}")
print(sizes.to_string())

# %% [markdown]
# Beside other ways to keep masks, as far as ten times the run's tasks. Dashed is what does not
# grow.

# %%
num_masks = np.unique(np.geomspace(1, 10 * len(tasks), 40).round().astype(int))
layout, density = stored.layout(run_dir), float(tasks["density"].mean())
figures.bytes_by_masks(figures.storage_bytes(num_masks, layout, density, reservoir))
