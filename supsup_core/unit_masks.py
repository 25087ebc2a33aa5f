"""Masks over units instead of weights: which hidden units of the fixed network speak.

Each hidden layer is normalised over the batch (no parameters, no running statistics),
multiplied by the 0/1 mask of its units, and goes through Swish, which keeps zeros zero. A
mask is as many bits as there are hidden units, few enough for a reservoir to hold.

Source: Wortsman et al. 2020, appendix on HopSupSup, and its code.
Shape letters: T tasks of a block, N images of a batch, P pixels, O units of a hidden layer,
S outputs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor
from torch.nn import functional

_NORM_EPSILON = 1e-5  # added to a variance before its root


@dataclass(frozen=True)
class UnitRecipe:
    """How scores of units are trained: SGD, the authors' values as defaults."""

    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4


def unit_forward(
    weights: Sequence[Float32[Tensor, "_ _"]],
    masks: Sequence[Float32[Tensor, "T _"]],
    images: Float32[Tensor, "T N P"],
) -> Float32[Tensor, "T N S"]:
    """Logits of each task's images under its masks; all tasks share the matrix products.

    Args:
        weights: fixed, (O, I) of each layer.
        masks: of each hidden layer's units.
        images: normalised; statistics are those of a task's N images.
    """
    x = images
    for weight, mask in zip(weights[:-1], masks, strict=True):
        drive = x @ weight.t()
        centred = drive - drive.mean(dim=1, keepdim=True)
        spread = centred.square().mean(dim=1, keepdim=True).add(_NORM_EPSILON).rsqrt()
        x = functional.silu(centred * spread * mask[:, None])
    return x @ weights[-1].t()


def train_unit_masks(
    weights: Sequence[Float32[Tensor, "_ _"]],
    batches: Iterable[tuple[Float32[Tensor, "T N P"], Int64[Tensor, "T N"]]],
    num_tasks: int,
    recipe: UnitRecipe,
) -> list[Bool[Tensor, "T _"]]:
    """Train the masks of a block of tasks at once.

    Scores begin at 0; a unit speaks while its score is not negative, and the gradient passes
    that step unchanged.

    Args:
        weights: fixed, (O, I) of each layer.
        batches: images and labels of every task, a step each.
        num_tasks: T.
        recipe: of the steps.

    Returns:
        masks of each hidden layer.
    """
    scores = [
        torch.zeros(num_tasks, len(weight), device=weight.device, requires_grad=True)
        for weight in weights[:-1]
    ]
    optimizer = torch.optim.SGD(
        scores,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    for images, labels in batches:
        optimizer.zero_grad()
        logits = unit_forward(weights, [_straight_through(s) for s in scores], images)
        # Summed over tasks: each has the gradient that it would have alone.
        loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        (loss / labels.shape[1]).backward()
        optimizer.step()
    return [score.detach() >= 0 for score in scores]


def _straight_through(scores: Tensor) -> Tensor:
    """0 or 1 by the score's sign, whose gradient is the score's."""
    return (scores >= 0).to(scores.dtype) + scores - scores.detach()
