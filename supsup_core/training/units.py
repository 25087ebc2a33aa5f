"""Train masks over units, a block of tasks at once, and measure them.

No weight learns, and the first layer's drives depend on no mask: its products need no pass
back.

Source: Wortsman et al. 2020, appendix on HopSupSup, and its code.
Shape letters: T tasks of a block, N images of a batch, O units of a hidden layer, S outputs.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor
from torch.nn import functional

from supsup_core.data import ImageSet
from supsup_core.kernels.scoring import score_plain
from supsup_core.networks.units import UnitNetwork, logits_of_drives
from supsup_core.tasks import Task
from supsup_core.training.batches import task_batches
from supsup_core.training.recipe import Recipe

_WEIGHT_DECAY = 1e-4  # of the scores, as the authors'

# Test images, at most, that are measured together, and share their statistics.
_MEASURED_TOGETHER = 250


def train_unit_masks(
    later: Sequence[Float32[Tensor, "_ _"]],
    batches: Iterable[tuple[Float32[Tensor, "T O N"], Int64[Tensor, "T N"]]],
    num_tasks: int,
    recipe: Recipe,
) -> list[Bool[Tensor, "T _ 1"]]:
    """Train the masks of a block of tasks from the first layer's drives.

    Scores begin at 0; a unit speaks while its score is not negative, and the gradient passes
    that step unchanged.

    Args:
        later: weights behind the first layer, (O, I).
        batches: drives, normalised, and labels of every task, a step each; no more are taken
            than the recipe has steps.
        num_tasks: T.
        recipe: of the steps; how large a batch is, is the caller's.

    Returns:
        masks of each hidden layer.
    """
    (masks,) = _unit_masks_in_stages(later, batches, num_tasks, recipe, [recipe.steps])
    return masks


def _unit_masks_in_stages(
    later: Sequence[Float32[Tensor, "_ _"]],
    batches: Iterable[tuple[Float32[Tensor, "T O N"], Int64[Tensor, "T N"]]],
    num_tasks: int,
    recipe: Recipe,
    stages: Collection[int],
) -> Iterator[list[Bool[Tensor, "T _ 1"]]]:
    """The masks after each of the stages, counted in steps, and where the batches end."""
    device = later[0].device
    scores = [
        torch.zeros(num_tasks, weight.shape[1], 1, device=device, requires_grad=True)
        for weight in later
    ]
    optimizer = recipe.make_optimizer().torch_form(scores, recipe.learning_rate)
    (group,) = optimizer.param_groups
    group["weight_decay"] = _WEIGHT_DECAY
    order = iter(batches)
    for step in range(recipe.steps + 1):
        batch = next(order, None) if step < recipe.steps else None
        if step in stages or batch is None:
            yield [score.detach() >= 0 for score in scores]
        if batch is None:
            return
        drives, labels = batch
        group["lr"] = recipe.learning_rate_at(step)
        optimizer.zero_grad()
        gains = [_straight_through(score) for score in scores]
        logits = logits_of_drives(later, gains, drives) / recipe.temperature
        # Summed over tasks: each has the gradient that it would have alone.
        loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        (loss / labels.shape[1]).backward()
        optimizer.step()


def _straight_through(scores: Tensor) -> Tensor:
    """0 or 1 by the score's sign, whose gradient is the score's."""
    return (scores >= 0).to(scores.dtype) + scores - scores.detach()


def train_unit_block(
    network: UnitNetwork,
    tasks: Sequence[Task],
    data: ImageSet,
    recipe: Recipe,
    *,
    seed: int,
    on_step: Callable[[int], None] | None = None,
) -> list[Bool[np.ndarray, "T _ _"]]:
    """Train the masks over units of a block of tasks; as training.train_block.

    Args:
        network: fixed.
        tasks: of one family.
        data: the training images.
        recipe: how.
        seed: of the run.
        on_step: called with the number of steps done, before each.

    Returns:
        bool (T, O, 1) for each hidden layer and (T, S, 0) for the outputs, on the CPU.
    """
    (masks,) = train_unit_block_in_stages(
        network, tasks, data, recipe, stages=[recipe.steps], seed=seed, on_step=on_step
    )
    return masks


def train_unit_block_in_stages(
    network: UnitNetwork,
    tasks: Sequence[Task],
    data: ImageSet,
    recipe: Recipe,
    *,
    stages: Collection[int],
    seed: int,
    on_step: Callable[[int], None] | None = None,
) -> Iterator[list[Bool[np.ndarray, "T _ _"]]]:
    """Train a block as train_unit_block does, and show its masks on the way.

    Arguments as there, and as in training.train_block_in_stages.

    Yields:
        The masks after each of the stages, in order.
    """

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for step, index in enumerate(task_batches(tasks, data, recipe, seed)):
            if on_step is not None:
                on_step(step)
            shown = [task.images(data.images[own]) for task, own in zip(tasks, index, strict=True)]
            labels = torch.from_numpy(data.labels[index].astype(np.int64))
            yield torch.stack([*map(network.drives, shown)]), labels.to(network.device)

    outputs = np.zeros((len(tasks), len(network.later[-1]), 0), dtype=np.bool_)
    for masks in _unit_masks_in_stages(network.later, batches(), len(tasks), recipe, stages):
        yield [*(mask.cpu().numpy() for mask in masks), outputs]


class UnitMeasure:
    """Measures masks over units; statistics are those of some images at a time.

    Args:
        network: fixed.
        data: the images.
    """

    def __init__(self, network: UnitNetwork, data: ImageSet) -> None:
        self._network, self._data = network, data

    def __call__(self, task: Task, mask: Sequence[Bool[np.ndarray, "_ _"]]) -> tuple[float, float]:
        """Accuracy and mean cross-entropy (nats) of one mask on the task's images."""
        gains = [torch.from_numpy(m).to(self._network.device, torch.float32) for m in mask]
        speaking = gains[0][:, 0].nonzero()[:, 0]  # the others' drives are not needed
        first, *rest = self._network.later
        later, gains = [first[:, speaking], *rest], [gains[0][speaking], *gains[1:]]
        members = task.members(self._data.labels)
        right, loss = 0, 0.0
        num_parts = -(-len(members) // _MEASURED_TOGETHER)
        for part in range(num_parts):
            some = members[part::num_parts]  # a data set may be sorted by class
            drives = self._network.drives(task.images(self._data.images[some]), speaking)
            labels = torch.from_numpy(self._data.labels[some].astype(np.int64))
            logits = logits_of_drives(later, gains, drives)
            num_right, its_loss = score_plain(logits.t(), labels.to(self._network.device))
            right, loss = right + num_right, loss + its_loss
        return right / len(members), loss / len(members)
