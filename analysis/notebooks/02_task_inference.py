# %% [markdown]
# # Which task is it? Three ways to ask, two questions
#
# All masks lie in one superposition, and the gradient in their coefficients tells which of them
# the images call for. `one_shot` takes the smallest slope, exactly; `one_shot_ranked` reads the
# strongest evidence first and stops when more would hardly change the answer; `binary` halves the
# candidates until one is left. They lower H, the entropy of the outputs, or G, which looks at the
# outputs without a class alone. `RUN_DIR` names a run that was asked by both.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import analysis
from analysis import figures, stored, summary
from analysis.load import load
from analysis.report import memory_bandwidth

plt.ion()  # without it Jupyter would name the figures and not show them
default = Path(analysis.__file__).parents[1] / "runs" / "mnist5k-permuted-32"
run_dir = Path(os.environ.get("RUN_DIR", default))
evaluations = load(run_dir, "evaluations").to_pandas()
by_gradient = evaluations["algorithm"].isin(["one_shot", "one_shot_ranked", "binary"])
asked = evaluations[by_gradient & (evaluations["num_distractors"] == 0)]

# %% [markdown]
# ## Is a faster way wrong more often?
#
# Wrong tasks against masks, a panel a question; a point on the floor is no error at all. Where
# bands overlap, the run cannot tell the ways apart. `agreement` is the share of ranked answers
# that are the exact ones.

# %%
ranked = asked[asked["algorithm"] == "one_shot_ranked"]
print(ranked.groupby(["num_tasks", "objective"])["agreement"].mean())
figures.algorithms_compared(asked)

# %% [markdown]
# ## H or G?
#
# The same images were shown for both, so the difference is taken task by task. Above 0, G names
# the right task more often; an interval that holds 0 decides nothing.

# %%
keys = ["num_tasks", "num_images", "algorithm", "task_id"]
paired = asked.pivot_table(index=keys, columns="objective", values="task_accuracy")
gains = (paired["G"] - paired["H"]).dropna().groupby(keys[:-1])
ends = gains.agg(summary.bootstrap)
g_minus_h = pd.DataFrame({"tasks": gains.size(), "G - H": gains.mean(), "95 %": ends})
print(g_minus_h.to_string())
figures.objectives_compared(asked)

# %% [markdown]
# ## What does an answer cost?
#
# Time and bytes of masks that are read, against masks. Dashed is the wall: all bits, once. A line
# below it answers without having looked at every bit. Times are those of the run, whose training
# may have shared the processor.

# %%
found = summary.evaluation_summary(asked)
found["milliseconds"] = 1000 * found["seconds_per_inference"]
costs = ["num_tasks", "algorithm", "objective", "milliseconds", "bits_read_fraction"]
print(found[costs].round(4).to_string(index=False))
figures.time_by_masks(asked, stored.layout(run_dir).row_bytes, memory_bandwidth())

# %% [markdown]
# ## How does it grow?
#
# b of cost = a kᵇ: with 1 twice the masks cost twice as much, with 0 they cost nothing more. Few
# checkpoints, or small k where fixed costs weigh most, make b too small to be carried further.

# %%
found["bits"] = found["bits_read_fraction"] * found["num_tasks"]
of_bits = found.groupby(summary.WAYS)[["num_tasks", "bits"]].apply(
    lambda rows: summary.scaling_exponent(rows["num_tasks"], rows["bits"])
)
exponents = summary.time_exponents(found).rename(columns={"exponent": "of_time"})
exponents = exponents.merge(of_bits.rename("of_bits").reset_index(), on=summary.WAYS)
print(exponents.round(2).to_string(index=False))
