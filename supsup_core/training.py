"""Train the masks of a block of tasks at once, and of one task plainly.

`train_task` is what a textbook would write; `train_block` does the same for many tasks
by the pass forward and back of supsup_core/block.py, and is held to it by tests.

Shape letters: B tasks of the block, N images of a batch, O and I as in a layer.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from supsup_core.block import BlockInputs, BlockLayer, backpropagate, layer_form
from supsup_core.data import ImageSet, batches, normalise
from supsup_core.families import Task
from supsup_core.methods import Method
from supsup_core.networks import Network, fixed_signs, fixed_weights, forward
from supsup_core.optimizers import Optimizer, make_optimizer
from supsup_core.streams import Role, stream

DECAYS = ("none", "linear")


@dataclass(frozen=True)
class Recipe:
    """How scores are trained.

    Attributes:
        steps: optimiser steps a task.
        batch_size: images a step.
        learning_rate: at the first step.
        smoothing: of the optimiser's running mean of squares, where it has one.
        decay: one of DECAYS: "none", or "linear": the learning rate falls evenly towards 0.
        temperature: logits are divided by it in the loss; above 1 the softmax is softer.
        optimizer: one of OPTIMIZERS.
        momentum: of the optimiser's running mean or sum of gradients, where it has one.
    """

    steps: int
    batch_size: int
    learning_rate: float
    smoothing: float = 0.99
    decay: str = "none"
    temperature: float = 1.0
    optimizer: str = "rmsprop"
    momentum: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch_size < 1 or not self.learning_rate > 0:
            raise ValueError(
                "steps must be >= 0, batch_size >= 1 and learning_rate > 0, got "
                f"{self.steps}, {self.batch_size} and {self.learning_rate}"
            )
        if self.decay not in DECAYS:
            raise ValueError(f"decay must be one of {', '.join(DECAYS)}, got {self.decay!r}")
        self.make_optimizer()

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.learning_rate * (1 - step / self.steps if self.decay == "linear" else 1)

    def make_optimizer(self) -> Optimizer:
        """Make the optimiser of the scores."""
        return make_optimizer(self.optimizer, smoothing=self.smoothing, momentum=self.momentum)


class _KeepMasked(torch.autograd.Function):
    """mask * weight forward; to the score, the gradient as if mask were the score."""

    @staticmethod
    def forward(ctx, scores, mask, weight):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(weight)
        return weight * mask

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (weight,) = ctx.saved_tensors
        return gradient * weight, None, None


def masked_weight(
    scores: Float[Tensor, "O I"], method: Method, weight: Float[Tensor, "O I"]
) -> Float[Tensor, "O I"]:
    """The weights that a score keeps, differentiable straight through the mask."""
    kept: Tensor = _KeepMasked.apply(  # type: ignore[no-untyped-call]
        scores, method.mask(scores.detach()), weight
    )
    return kept


def task_batches(
    tasks: Sequence[Task], data: ImageSet, recipe: Recipe, seed: int
) -> Iterator[Integer[np.ndarray, "B N"]]:
    """Indices of the images of each step, a row a task.

    Tasks of the whole data set share one sequence, named by the first of them.
    Tasks with classes of their own have each their own.

    Raises:
        ValueError: a task whose classes have no image.
    """
    if all(task.classes is None for task in tasks):
        for batch in batches(seed, tasks[0].task_id, len(data.images), recipe.batch_size):
            yield np.broadcast_to(batch, (len(tasks), len(batch)))
    members = [task.members(data.labels) for task in tasks]
    for task, member in zip(tasks, members, strict=True):
        if not len(member):
            raise ValueError(f"no image of task {task.task_id}, classes {task.classes}")
    num_images = min(len(m) for m in members)  # so that the block's batches have one size
    size = min(recipe.batch_size, num_images)
    sequences = [
        batches(seed, task.task_id, len(m), size) for task, m in zip(tasks, members, strict=True)
    ]
    while True:
        yield np.stack([m[next(s)] for m, s in zip(members, sequences, strict=True)])


def initial_scores(
    network: Network, method: Method, task_id: int, seed: int
) -> list[Float[np.ndarray, "_ _"]]:
    """The scores a task starts from, float32 (O, I) for each layer."""
    return [
        method.initial_scores(layer, stream(seed, Role.SCORES, task_id, i))
        for i, layer in enumerate(network.layers)
    ]


def train_task(
    network: Network,
    method: Method,
    task: Task,
    data: ImageSet,
    recipe: Recipe,
    index_batches: Iterator[Integer[np.ndarray, " N"]],
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
) -> list[Float[Tensor, "_ _"]]:
    """Train one task by autograd and torch.optim: the plain form that train_block is held to.

    Args:
        network: whose weights follow from the seed.
        method: the mask rule.
        task: what is done to the images.
        data: the training images.
        recipe: how.
        index_batches: which images each step sees.
        seed: of the run.
        dtype: of all arithmetic.

    Returns:
        The scores at the end, (O, I) for each layer.
    """
    weights = [weight.to(dtype) for weight in fixed_weights(network, seed)]
    scores = [
        torch.from_numpy(s).to(dtype).requires_grad_()
        for s in initial_scores(network, method, task.task_id, seed)
    ]
    optimizer = recipe.make_optimizer().torch_form(scores, recipe.learning_rate)
    for step in range(recipe.steps):
        index = next(index_batches)
        pixels = torch.from_numpy(task.images(data.images[index]))
        logits = forward(
            [masked_weight(s, method, w) for s, w in zip(scores, weights, strict=True)],
            normalise(pixels, data.mean, data.std).to(dtype),
        )
        labels = torch.from_numpy(data.labels[index]).long()
        optimizer.param_groups[0]["lr"] = recipe.learning_rate_at(step)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits / recipe.temperature, labels).backward()
        optimizer.step()
    return [s.detach() for s in scores]


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
