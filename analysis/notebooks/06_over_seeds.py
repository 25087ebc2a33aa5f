# %% [markdown]
# # Several runs: seeds and output sizes
#
# One command can make several runs, for example one for each seed. This notebook averages over the
# seeds, and draws the figures of the experiments `fig3_lenet`, `fig3_fc`, `fig4`, `fig5_left` and
# `fig6`. `RUN_DIR` names the folder of several runs, or the folder of one run.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt

import analysis
from analysis import figures
from analysis.several import load_several, over_seeds, runs_in
from analysis.several_figures import accuracy_over_seeds, task_accuracy_by_outputs

plt.ion()  # otherwise Jupyter prints the names of the figures and does not show them
default = Path(analysis.__file__).parents[1] / "runs" / "mnist5k-permuted-32-seeds"
folder = Path(os.environ.get("RUN_DIR", default))
evaluations = load_several(folder, "evaluations").to_pandas()
runs = runs_in(folder) or [str(folder)]
print("\n".join(runs))

# %% [markdown]
# ## Means over seeds
#
# Each run has one mean over its tasks. The table has the mean of these means over the seeds, their
# standard deviation, and the 95 % interval of the mean by Student's t. The interval tells what
# other seeds would give. It is wide for two or three seeds.

# %%
over = over_seeds(evaluations)
columns = ["outputs", "num_tasks", "algorithm", "objective", "seeds"]
for measure in ("task_accuracy", "accuracy_gg", "accuracy_gnu"):
    columns += [measure, *(f"{measure}_{end}" for end in ("std", "low", "high"))]
print(over[columns].round(4).to_string(index=False))

# %% [markdown]
# ## Accuracy against the number of tasks
#
# Figures 3, 4 and 5 of the paper: one figure for each number of outputs.

# %%
by_outputs = {int(outputs): accuracy_over_seeds(rows) for outputs, rows in over.groupby("outputs")}

# %% [markdown]
# ## Task accuracy against the number of outputs
#
# Figure 6 of the paper, if the runs have different numbers of outputs. Superfluous neurons are
# outputs without a class. The objective G uses only these outputs.

# %%
outputs_figure = task_accuracy_by_outputs(over) if len(by_outputs) > 1 else None

# %% [markdown]
# ## Sweeps until recall finds a mask
#
# The figure is drawn if masks were recalled from reservoirs. If there are several runs, it is about
# the first run.

# %%
try:
    recalls = load_several(runs[0], "reservoir").to_pandas()
except FileNotFoundError:
    recalls, sweeps_figure = None, None
else:
    sweeps_figure = figures.sweeps_by_masks(recalls)
