# %% [markdown]
# # A mask finder of your own
#
# A method draws first scores and says which weights stay. Here: the larger half of each layer's scores,
# against the threshold rule, on four permutations of small digits, in this process.

# %%
import pandas as pd
import torch

from harness.datasets import load_dataset
from supsup_core.data import normalise
from supsup_core.inference import DenseGradient, one_shot
from supsup_core.measure import measure_form
from supsup_core.methods import Threshold
from supsup_core.networks import fixed_weights, make_network
from supsup_core.objectives import OBJECTIVES
from supsup_core.tasks import make_task
from supsup_core.training import Recipe, train_block

SEED, NUM_TASKS = 0, 4


# %%
class TopHalf:
    """A weight stays while its score is in the larger half of its layer's."""

    initial_scores = Threshold.initial_scores

    def mask(self, scores: torch.Tensor) -> torch.Tensor:
        """Keep the larger half."""
        flat = scores.flatten(-2)  # a layer of one task, or of each task of a block
        best = flat.topk(flat.shape[-1] // 2, dim=-1).indices
        kept = torch.zeros_like(flat, dtype=torch.bool).scatter(-1, best, True)
        return kept.reshape(scores.shape)


# %% [markdown]
# ## Train a block of tasks
#
# Both start from the same scores, weights and batches; the rule alone differs.

# %%
data = load_dataset("digits")
network = make_network("mlp", data.side**2, 20, hidden=[64, 32])
setting = {"seed": SEED, "num_tasks": NUM_TASKS, "side": data.side, "num_classes": 10}
tasks = [make_task("permuted", i, **setting) for i in range(NUM_TASKS)]
recipe = Recipe(steps=300, batch_size=64, learning_rate=2e-3, smoothing=0.95, decay="linear")
methods = {"threshold": Threshold(), "top half": TopHalf()}
masks = {
    name: train_block(network, method, tasks, data.train, recipe, seed=SEED)
    for name, method in methods.items()
}

# %% [markdown]
# ## Measure
#
# Accuracy with the task given, density, and the share of single test images whose task one-shot names by H
# and by G among the four. Chance is 0.1 for labels and 0.25 for tasks.

# %%
weights = fixed_weights(network, SEED)
measure = measure_form(torch.device("cpu"))(weights, data.test, torch.device("cpu"))
NUM_IMAGES = 50


def task_accuracy(layers, objective):
    """Share of the first test images of every task whose task is named."""
    stack = [torch.from_numpy(layer).float() for layer in layers]
    right = 0
    for task in tasks:
        pixels = torch.from_numpy(task.images(data.test.images[:NUM_IMAGES]))
        queries = normalise(pixels, data.test.mean, data.test.std)[:, None]  # one image a query
        gradient = DenseGradient(weights, stack, queries, OBJECTIVES[objective], num_real=10)
        right += int((one_shot(gradient).tasks == task.task_id).sum())
    return right / (NUM_TASKS * NUM_IMAGES)


rows = []
for name, layers in masks.items():
    given = [measure(task, [layer[i] for layer in layers])[0] for i, task in enumerate(tasks)]
    kept = sum(layer.sum() for layer in layers) / sum(layer.size for layer in layers)
    inferred = {f"task accuracy, {o}": task_accuracy(layers, o) for o in "HG"}
    rows.append({"method": name, "accuracy": sum(given) / NUM_TASKS, "density": kept} | inferred)
found = pd.DataFrame(rows).set_index("method")
found

# %% [markdown]
# ## Make it a method of the main job
#
# Put the class into a file of `supsup_core/methods` and an entry into `METHODS` there: `method=top_half`
# then trains thousands of tasks with it. The guide (`docs/extending.md`) shows both changes.
