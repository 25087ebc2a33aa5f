# %% [markdown]
# # Which task is it?
#
# Ways to infer the task of a batch among k masks: `one_shot` reads one gradient in all coefficients,
# `one_shot_ranked` stops as soon as the strongest evidence decides, `binary` halves the candidates, and
# `min_entropy` and `max_logit` run every mask. H is the entropy of the labels, G reads the units that
# stand for none.

# %%
import os

from analysis import figures, load, report, stored, summary

RUN_DIR = os.environ.get("RUN_DIR", "runs/mnist5k-permuted-32")
evaluations = summary.largest_samples(load.load(RUN_DIR, "evaluations").to_pandas())
evaluations["algorithm"].value_counts()

# %% [markdown]
# ## Right, by algorithm
#
# Bars are 95 % intervals. A difference within them is none.

# %%
figures.algorithms_compared(evaluations)

# %% [markdown]
# ## H against G

# %%
figures.objectives_compared(evaluations)

# %% [markdown]
# ## What an inference costs
#
# Left: the time, and dashed how long memory takes to hand over all packed masks once. Below that line
# an inference did not read them all; right is how much it read.

# %%
layout = stored.layout(RUN_DIR)
figures.time_by_masks(evaluations, layout.row_bytes, report.memory_bandwidth())

# %% [markdown]
# Time grows as a power of k; an exponent of 1 is a full scan. Few and small numbers of masks say little
# about it, for the constant part of an inference hides it there.

# %%
means = summary.evaluation_summary(evaluations)
exponents = summary.time_exponents(means)
exponents

# %% [markdown]
# ## Where it goes wrong
#
# Tasks whose batches were taken for another's, at the largest number of masks.

# %%
largest = evaluations[evaluations["num_tasks"] == evaluations["num_tasks"].max()]
wrong = largest[largest["task_accuracy"] < 1]
wrong.groupby(["algorithm", "objective"], dropna=False)["task_accuracy"].agg(["size", "mean"])
