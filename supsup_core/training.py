"""Train the masks of a block of tasks at once, and of one task plainly.

The block works on sign masks: weights are +-c, so with m = mask * sign and ReLU
the logits are C m_L relu(... m_1 x) with C the product of the layers' constants.
Every product is then one of numbers 0, +1 and -1, exact in bfloat16. Activations
are feature-major, (B, units, N).

Tasks that see the same images share each batch. If they are permutations, the
permutation moves from the images to the columns of the first layer, whose
products for the whole block become a single one.

Shape letters: B tasks of the block, N images of a batch, P pixels, O and I as in
a layer, S outputs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from supsup_core.data import ImageSet, batches, normalise
from supsup_core.kernels.cross_entropy import logit_gradient_for
from supsup_core.kernels.rmsprop import rmsprop_step_for
from supsup_core.methods import Method
from supsup_core.networks import Network, fixed_signs, fixed_weights, forward
from supsup_core.streams import Role, stream
from supsup_core.tasks import Task

DECAYS = ("none", "linear")


@dataclass(frozen=True)
class Recipe:
    """How scores are trained.

    Attributes:
        steps: optimiser steps a task.
        batch_size: images a step.
        learning_rate: of RMSprop, at the first step.
        smoothing: of RMSprop's running mean of squares.
        decay: one of DECAYS: "none", or "linear": the learning rate falls evenly towards 0.
    """

    steps: int
    batch_size: int
    learning_rate: float
    smoothing: float = 0.99
    decay: str = "none"

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch_size < 1 or not self.learning_rate > 0:
            raise ValueError(
                "steps must be >= 0, batch_size >= 1 and learning_rate > 0, got "
                f"{self.steps}, {self.batch_size} and {self.learning_rate}"
            )
        if self.decay not in DECAYS:
            raise ValueError(f"decay must be one of {', '.join(DECAYS)}, got {self.decay!r}")

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.learning_rate * (1 - step / self.steps if self.decay == "linear" else 1)


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
    optimizer = torch.optim.RMSprop(scores, lr=recipe.learning_rate, alpha=recipe.smoothing)
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
        torch.nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
    return [s.detach() for s in scores]


class _Inputs:
    """The images of a step as the block's first layer reads them, and their labels.

    `columns`: for permutations, each task's columns of the first layer in the
    order of the pixels (its inverse permutation); None where the images are gathered.
    """

    def __init__(
        self, tasks: Sequence[Task], data: ImageSet, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._data, self._dtype = data, dtype
        self._images = torch.from_numpy(data.images).to(device)
        self._labels = torch.from_numpy(data.labels).to(device).long()
        sources = [task.source for task in tasks]
        self._shared = all(task.classes is None for task in tasks)
        self.columns: np.ndarray | None = None
        self._sources: Tensor | None = None
        if all(task.is_permutation for task in tasks) and self._shared:
            self.columns = np.argsort(np.stack([s for s in sources if s is not None]), axis=1)
        elif all(s is not None for s in sources):
            stacked = np.stack([s for s in sources if s is not None]).astype(np.int64)
            self._sources = torch.from_numpy(stacked).to(device)
        black = normalise(torch.zeros(1, dtype=torch.uint8), data.mean, data.std)
        self._background = black.to(device, dtype)

    def at(self, index: Integer[np.ndarray, "B N"]) -> tuple[Tensor, Tensor]:
        """Images (P, N) shared by all tasks, or (B, P, N); labels (B, N)."""
        if not self._shared:
            picked = torch.tensor(index, device=self._images.device)
            return self._normal(self._images[picked]), self._labels[picked]
        picked = torch.tensor(index[0], device=self._images.device)
        labels = self._labels[picked].expand(len(index), -1)
        images = self._normal(self._images[picked])
        if self._sources is None:
            return images, labels
        padded = torch.cat([images, self._background.expand(1, images.shape[1])])
        return padded[self._sources], labels

    def _normal(self, pixels: Tensor) -> Tensor:
        normal = normalise(pixels, self._data.mean, self._data.std)
        return normal.transpose(-1, -2).to(self._dtype, memory_format=torch.contiguous_format)


def _product(masked: Float[Tensor, "B O I"], x: Tensor) -> Float[Tensor, "B O N"]:
    """Masked @ x; one single product where x (I, N) is shared by the block."""
    if x.dim() == 2:
        return (masked.flatten(0, 1) @ x).view(*masked.shape[:2], -1)
    return torch.bmm(masked, x)


def _weight_gradient(delta: Float[Tensor, "B O N"], x: Tensor) -> Float[Tensor, "B O I"]:
    """Delta @ x^T, summed over images; one single product where x (I, N) is shared."""
    if x.dim() == 2:
        return (delta.flatten(0, 1) @ x.t()).view(*delta.shape[:2], -1)
    return torch.bmm(delta, x.transpose(1, 2))


def sign_mask_gradients(
    masked: Sequence[Float[Tensor, "B _ _"]],
    x: Tensor,
    labels: Integer[Tensor, "B N"],
    scale: float,
) -> list[Float[Tensor, "B _ _"]]:
    """Gradients of the mean cross-entropy in the masked signs, written out by hand.

    Args:
        masked: sign * mask of each layer.
        x: (I, N) shared by the block, or (B, I, N).
        labels: the class of every image.
        scale: C, the product of the layers' constants.

    Returns:
        d loss_b / d masked, for each layer.
    """
    activations = [x]
    for i, layer in enumerate(masked):
        z = _product(layer, activations[-1])
        if i < len(masked) - 1:
            activations.append(z.relu_())
    delta = logit_gradient_for(z.dtype, z.device)(z, labels, scale)
    gradients: list[Tensor] = []
    for i in reversed(range(len(masked))):
        gradients.append(_weight_gradient(delta, activations[i]))
        if i:
            delta = torch.bmm(masked[i].transpose(1, 2), delta)
            delta = torch.ops.aten.threshold_backward(delta, activations[i], 0)  # ReLU's
    return gradients[::-1]


def _reorder(values: np.ndarray, columns: np.ndarray | None) -> np.ndarray:
    """Put the last axis of each task's values (B, O, I) in the order of its columns (B, I)."""
    if columns is None:
        return values
    return np.take_along_axis(values, columns[:, None, :], axis=2)


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
    device = device or torch.device("cpu")
    inputs = _Inputs(tasks, data, dtype, device)
    accurate = torch.promote_types(dtype, torch.float32)
    step_fused = rmsprop_step_for(method, device)
    scale = prod(layer.constant for layer in network.layers)

    starts = [initial_scores(network, method, task.task_id, seed) for task in tasks]
    scores, squares, signs, masked = [], [], [], []
    for i, layer in enumerate(network.layers):
        columns = inputs.columns if i == 0 else None
        start = _reorder(np.stack([s[i] for s in starts]), columns)
        sign = np.broadcast_to(fixed_signs(layer, seed, i), start.shape)
        scores.append(torch.from_numpy(start).to(device, accurate))
        squares.append(torch.zeros_like(scores[-1]))
        signs.append(torch.from_numpy(_reorder(sign, columns).copy()).to(device, dtype))
        masked.append(signs[-1] * method.mask(scores[-1]))

    for step, index in zip(
        range(recipe.steps), task_batches(tasks, data, recipe, seed), strict=False
    ):
        x, labels = inputs.at(index)
        gradients = sign_mask_gradients(masked, x, labels, scale)
        rate = recipe.learning_rate_at(step)
        for layer_state in zip(scores, squares, gradients, signs, masked, strict=True):
            step_fused(*layer_state, rate, recipe.smoothing)
        if on_step is not None:
            on_step(step + 1)

    back = None if inputs.columns is None else np.argsort(inputs.columns, axis=1)
    masks = [method.mask(s).cpu().numpy() for s in scores]
    return [_reorder(mask, back if i == 0 else None) for i, mask in enumerate(masks)]
