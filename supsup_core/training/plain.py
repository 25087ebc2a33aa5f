"""Train one task by autograd and torch.optim: the plain form that blocks are held to.

Shape letters: N images of a batch, O and I as in a layer.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from supsup_core.data import ImageSet, normalise
from supsup_core.methods import Method
from supsup_core.networks.mlp import Network, fixed_weights, forward
from supsup_core.streams import Role, stream
from supsup_core.tasks import Task
from supsup_core.training.recipe import Recipe


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
