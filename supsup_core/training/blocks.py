"""Train the masks of a block of tasks at once, and of one task plainly.

`train_task` is what a textbook would write; `train_block` does the same for many tasks
by the pass forward and back of supsup_core/training/layers.py, and is held to it by tests.

Shape letters: B tasks of the block, N images of a batch, O and I as in a layer.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from math import prod

import numpy as np
import torch
from jaxtyping import Bool

from supsup_core.data import ImageSet
from supsup_core.methods import Method
from supsup_core.networks.mlp import Network, fixed_signs
from supsup_core.tasks import Task
from supsup_core.training.batches import task_batches
from supsup_core.training.inputs import BlockInputs
from supsup_core.training.layers import BlockLayer, backpropagate, layer_form
from supsup_core.training.plain import initial_scores
from supsup_core.training.recipe import Recipe


def begin_layers(
    network: Network,
    method: Method,
    tasks: Sequence[Task],
    inputs: BlockInputs,
    recipe: Recipe,
    *,
    seed: int,
    dtype: torch.dtype,
) -> list[BlockLayer]:
    """Make the layers of a block as they are before the first step; arguments as in train_block."""
    form = layer_form(method, inputs.device)
    starts = [initial_scores(network, method, task.task_id, seed) for task in tasks]
    layers = []
    for i, layer in enumerate(network.layers):
        scores = np.stack([start[i] for start in starts])
        signs = np.broadcast_to(fixed_signs(layer, seed, i), scores.shape)
        if i == 0:
            scores, signs = inputs.to_columns(scores), inputs.to_columns(signs)
        layers.append(form(scores, signs, method, recipe.make_optimizer(), dtype, inputs.device))
    return layers


def train_block(
    network: Network,
    method: Method,
    tasks: Sequence[Task],
    data: ImageSet,
    recipe: Recipe,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    on_step: Callable[[int], None] | None = None,
) -> list[Bool[np.ndarray, "B _ _"]]:
    """Train the masks of a block of tasks at once.

    The result depends on the seed, the tasks of the block, dtype, and the kind of
    device; not on what else is trained, before, after or beside it. Where the tasks'
    classes differ, a batch is as large as the smallest of them allows.

    Args:
        network: whose weights follow from the seed.
        method: the mask rule.
        tasks: of one family.
        data: the training images.
        recipe: how.
        seed: of the run.
        dtype: of the products: float32, bfloat16, or float64. Scores and the
            optimiser are at least float32.
        device: where; the CPU if None.
        on_step: called with the number of steps done, after each.

    Returns:
        bool (B, O, I) for each layer, on the CPU.
    """
    (masks,) = train_block_in_stages(
        network,
        method,
        tasks,
        data,
        recipe,
        stages=[recipe.steps],
        seed=seed,
        dtype=dtype,
        device=device,
        on_step=on_step,
    )
    return masks


def train_block_in_stages(
    network: Network,
    method: Method,
    tasks: Sequence[Task],
    data: ImageSet,
    recipe: Recipe,
    *,
    stages: Collection[int],
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Iterator[list[Bool[np.ndarray, "B _ _"]]]:
    """Train a block as train_block does, and show its masks on the way.

    Arguments as there; `stages` says after how many steps to show the masks, each number in
    [0, recipe.steps].

    Yields:
        The masks after each of the stages, in order. Nothing is trained before it is asked for.
    """
    device = device or torch.device("cpu")
    inputs = BlockInputs(tasks, data, dtype, device)
    layers = begin_layers(network, method, tasks, inputs, recipe, seed=seed, dtype=dtype)
    scale = prod(layer.constant for layer in network.layers) / recipe.temperature
    order = task_batches(tasks, data, recipe, seed)
    for step in range(recipe.steps + 1):
        if step in stages:
            masks = [layer.masks() for layer in layers]
            yield [inputs.from_columns(masks[0]), *masks[1:]]
        if step == recipe.steps:
            return
        x, labels = inputs.at(next(order))
        rate = recipe.learning_rate_at(step)
        for i, delta, received in backpropagate([m.masked for m in layers], x, labels, scale):
            layers[i].learn(delta, received, rate)
        if on_step is not None:
            on_step(step + 1)
