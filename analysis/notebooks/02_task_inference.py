# %% [markdown]
# # Which task is it? Three algorithms, two objectives
#
# All masks are in one superposition. The gradient in their coefficients shows which mask fits the
# images. `one_shot` takes the task with the smallest slope, exactly. `one_shot_ranked` reads the
# strongest evidence first, and stops when more evidence would hardly change the answer. `binary`
# halves the candidates until one task is left. The objective is H, the entropy of the outputs, or
# G, whose gradient flows only through superfluous neurons (outputs without a class). `RUN_DIR`
# names a run that was evaluated with both objectives.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import analysis
from analysis import figures, stored, summary
from analysis.bandwidth import memory_bandwidth
from analysis.load import load

plt.ion()  # otherwise Jupyter prints the names of the figures and does not show them
default = Path(analysis.__file__).parents[1] / "runs" / "mnist5k-permuted-32"
run_dir = Path(os.environ.get("RUN_DIR", default))
evaluations = load(run_dir, "evaluations").to_pandas()
by_gradient = evaluations["algorithm"].isin(["one_shot", "one_shot_ranked", "binary"])
asked = evaluations[by_gradient & (evaluations["num_distractors"] == 0)]
asked = summary.largest_samples(asked)  # one row per way to infer and task

# %% [markdown]
# ## Is a faster algorithm wrong more often?
#
# The figure shows the fraction of wrong tasks against the number of masks, with one panel per
# objective. A point at the bottom means that there was no error. If two bands overlap, this run
# cannot tell the two algorithms apart. `agreement` is the share of ranked answers that equal the
# exact answer.

# %%
ranked = asked[asked["algorithm"] == "one_shot_ranked"]
print(ranked.groupby(["num_tasks", "objective"])["agreement"].mean())
figures.algorithms_compared(asked)

# %% [markdown]
# ## H or G?
#
# Both objectives saw the same images, so the difference is taken task by task. A difference above
# 0 means that G finds the right task more often. If the interval contains 0, this run does not
# show which objective is better.

# %%
keys = ["num_tasks", "algorithm", *summary.SETTINGS]
of_objective = asked.set_index([*keys, "task_id", "objective"])["task_accuracy"].unstack()
gains = (of_objective["G"] - of_objective["H"]).dropna().groupby(keys, dropna=False)
ends = gains.agg(summary.bootstrap)
g_minus_h = pd.DataFrame({"tasks": gains.size(), "G - H": gains.mean(), "95 %": ends})
print(g_minus_h.to_string())
figures.objectives_compared(asked)

# %% [markdown]
# ## What does an answer cost?
#
# The figure shows time, and mask bytes read, against the number of masks. The dashed line is the
# lower bound of a full scan: the time to read all bits once. If an algorithm is below this line, it
# does not read every bit. The times were measured in the run, in which training may have used the
# same processor.

# %%
found = summary.evaluation_summary(asked)
found["milliseconds"] = 1000 * found["seconds_per_inference"]
costs = ["num_tasks", "algorithm", "objective", "milliseconds", "bits_read_fraction"]
print(found[costs].round(4).to_string(index=False))
figures.time_by_masks(asked, stored.layout(run_dir).row_bytes, memory_bandwidth())

# %% [markdown]
# ## How does the cost grow?
#
# The table shows b in cost = a kᵇ. If b is 1, twice as many masks cost twice as much. If b is 0,
# more masks cost nothing more. A way needs at least four checkpoints that span a factor of ten or
# more. Do not extrapolate from small k: fixed costs dominate there, so b comes out too small.

# %%
found["bits"] = found["bits_read_fraction"] * found["num_tasks"]
by_way = found.groupby(summary.WAYS, dropna=False)[["num_tasks", "milliseconds", "bits"]]
exponents = pd.DataFrame(
    {
        f"of_{cost}": by_way.apply(
            lambda rows, cost=cost: summary.scaling_exponent(rows["num_tasks"], rows[cost])
        )
        for cost in ("milliseconds", "bits")
    }
)
print(exponents.dropna(how="all").round(2).reset_index().to_string(index=False))
