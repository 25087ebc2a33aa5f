# %% [markdown]
# # A mask finder of your own
#
# A finder draws a task's first scores, and its rule decides from the scores which weights are kept.
# Gradients pass through the rule unchanged. The finder in this notebook keeps a fixed share of each
# tensor's weights: the weights with the largest scores, not the largest |score|. The notebook
# compares this finder with the threshold rule on the same tasks. The notebook reads no run. It
# trains everything within seconds, on the 8x8 digits.

# %%
import pandas as pd
import torch
from torch import Tensor

from analysis.summary import bootstrap
from harness.data.catalogue import load_dataset
from supsup_core.data import normalise
from supsup_core.engines.choose import engine_for
from supsup_core.inference.algorithms import Options
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.methods.planes import KeepMethod, kept_count, top_share
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.mlp import mlp
from supsup_core.networks.protocol import MaskedTensor
from supsup_core.states.bits import BitStates
from supsup_core.states.layout import density
from supsup_core.tasks.make import make_task
from supsup_core.tasks.permuted import Permuted
from supsup_core.tasks.protocol import Setting
from supsup_core.training.choose import trainer_for
from supsup_core.training.recipe import Recipe


class TopShare(KeepMethod):
    """A finder that keeps the weights with the largest scores of each tensor."""

    def __init__(self, share: float) -> None:
        self.share = share

    def mask(self, tensor: MaskedTensor, scores: Tensor) -> Tensor:
        """Keep the largest scores; `scores` has shape (B, O, I) for a block of B tasks."""
        return top_share(scores, kept_count(self.share, tensor.num_gains))


# %% [markdown]
# There are 16 permuted tasks, one network and one recipe. Each finder trains all tasks as a block.

# %%
SEED, NUM_TASKS, QUERIES = 0, 16, 16
data = load_dataset("digits")
network = mlp(data.input_shape, 100, hidden=[200, 100])
height, width = data.input_shape[1:]
setting = Setting(SEED, NUM_TASKS, (height, width), data.num_classes)
tasks = [make_task(Permuted(), i, setting) for i in range(NUM_TASKS)]
recipe = Recipe(steps=200, batch_size=128, learning_rate=2e-3)
methods = {"threshold": Threshold(), "top_share": TopShare(0.3)}

# %% [markdown]
# `accuracy` is measured with the task given. `task_accuracy` is measured on single test images:
# one gradient of the entropy through the superposition of all masks infers the task of an image.

# %%
parts = list[pd.DataFrame]()
shown = [torch.from_numpy(task.images(data.test.images[:QUERIES])) for task in tasks]
queries = normalise(torch.cat(shown), data.test.mean, data.test.std)[:, None]
for name, method in methods.items():
    trainer = trainer_for(network, method, data.train, data.test, recipe, seed=SEED)
    ((states, _),) = trainer.stages(tasks, after=[recipe.steps])
    layout = layout_of(network, method)
    rows = layout.pack(states)
    stored = BitStates(layout, rows, torch.device("cpu"))
    engine = engine_for(network, network.weights(SEED), stored, data.num_classes)
    inferred = engine.infer(queries, "one_shot", OBJECTIVES["H"], Options()).tasks
    right = inferred.reshape(NUM_TASKS, -1) == torch.arange(NUM_TASKS)[:, None]
    found = pd.DataFrame({"method": name, "task": range(NUM_TASKS)})
    found["density"] = density(layout, rows)
    pairs = zip(tasks, states, strict=True)
    found["accuracy"] = [trainer.measure(task, state).accuracy for task, state in pairs]
    parts.append(found.assign(task_accuracy=right.double().mean(dim=1).numpy()))
results = pd.concat(parts).set_index(["method", "task"])
print(results.groupby("method", sort=False).mean().round(4).to_string())

# %% [markdown]
# The tasks are the same, so the difference is taken task by task. If an interval contains 0, the
# data do not show which finder is better. One seed, and a recipe tuned for neither, show little.

# %%
change = results.loc["top_share"] - results.loc["threshold"]
for column in change:
    low, high = bootstrap(change[column])
    print(f"{column}, top_share minus threshold: {change[column].mean():+.4f} ", end="")
    print(f"({low:+.4f} to {high:+.4f})")

# %% [markdown]
# To use the finder in the main job, put the class into a file `finders.py` in the folder in which
# you type commands, and give `share` a default. Then
# `make run ARGS="method=finders:TopShare method_options.share=0.3"` trains masks with the finder.
# `04_compare_runs.py` compares that run with another run.
