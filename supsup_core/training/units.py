"""Train masks over units for all tasks of a block together, and measure such masks.

No mask changes the drives (pre-activations) of the first hidden layer, and the weights are fixed.
So the first layer needs no backward pass, and its drives can be computed from pixels that are whole
numbers. Tests compare this trainer with the simpler and slower trainer in autograd.py.

Source: Wortsman et al. 2020, appendix on HopSupSup, and the authors' code.
Shape letters: B tasks of a block, N images of a batch, O units of a hidden layer, I inputs of a
layer.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor
from torch.nn import functional

from supsup_core.data import ImageSet
from supsup_core.kernels.scoring import score_plain
from supsup_core.methods.protocol import Shared
from supsup_core.networks.units import WholePixels, logits_of_drives
from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training.base import StagedTrainer
from supsup_core.training.batches import Batch, batch_labels, block_batches
from supsup_core.training.measure import MEASURED_TOGETHER, strided
from supsup_core.training.protocol import Measured, OnStep
from supsup_core.training.recipe import Recipe


def unit_masks_in_stages(
    later: Sequence[Float32[Tensor, "_ _"]],
    batches: Iterable[tuple[Float32[Tensor, "B O N"], Int64[Tensor, "B N"]]],
    num_tasks: int,
    recipe: Recipe,
    after: Collection[int],
    on_step: OnStep | None = None,
) -> Iterator[list[Bool[Tensor, "B _"]]]:
    """Train masks over units, for B tasks, from the pre-activations of the first hidden layer.

    All scores start at 0. The gain of a unit is 1 if the unit's score is not negative, and 0
    otherwise. In the backward pass, d gain / d score is 1.

    Args:
        later: for each layer after the first, the weights (outputs, inputs).
        batches: one pair per step: the normalised pre-activations (B, O, N) of the first hidden
            layer for N images per task, and the labels (B, N). max(after) pairs are read.
        num_tasks: B, the number of tasks.
        recipe: the settings of the training. Its batch_size is not used, because `batches` gives
            the batches.
        after: numbers of steps after which the masks are yielded. Training ends after the largest.
        on_step: a function that is called after each step, with the number of finished steps.

    Yields:
        One mask tensor per hidden layer, (B, units), after each number of steps in `after`.
    """
    device = later[0].device
    scores = [
        torch.zeros(num_tasks, weight.shape[1], device=device, requires_grad=True)
        for weight in later
    ]
    optimizer = recipe.torch_optimizer(scores)
    order = iter(batches)
    last = max(after)
    for step in range(last + 1):
        if step in after:
            yield [score.detach() >= 0 for score in scores]
        if step == last:
            return
        drives, labels = next(order)
        optimizer.param_groups[0]["lr"] = recipe.learning_rate_at(step)
        optimizer.zero_grad()
        summed_loss(later, scores, drives, labels, recipe.temperature).backward()
        optimizer.step()
        if on_step is not None:
            on_step(step + 1)


def summed_loss(
    later: Sequence[Float32[Tensor, "_ _"]],
    scores: Sequence[Float32[Tensor, "B _"]],
    drives: Float32[Tensor, "B O N"],
    labels: Int64[Tensor, "B N"],
    temperature: float,
) -> Tensor:
    """Compute the sum of the mean cross-entropies of B tasks, for the backward pass.

    The losses of the tasks are summed, so each task gets the same gradient as if it trained alone.

    Args:
        later: for each layer after the first, the weights (outputs, inputs).
        scores: for each hidden layer, the scores of all tasks.
        drives: the normalised pre-activations of the first hidden layer.
        labels: the labels of the images.
        temperature: the logits are divided by this number.
    """
    gains = [_straight_through(score) for score in scores]
    logits = logits_of_drives(later, gains, drives) / temperature
    loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    return loss / labels.shape[1]


def _straight_through(scores: Tensor) -> Tensor:
    """Compute gains: 1 if score >= 0, otherwise 0. In the backward pass, d gain / d score is 1."""
    return (scores >= 0).to(scores.dtype) + scores - scores.detach()


class UnitTrainer(StagedTrainer):
    """A trainer of masks over units by the threshold rule. For the methods, see Trainer.

    Args:
        network: the fixed network. Its first layer is computed from pixels that are whole numbers.
        train: the training images, with one channel.
        test: the test images, with one channel.
        recipe: the settings of the training.
        seed: the run's seed.
    """

    def __init__(
        self, network: WholePixels, train: ImageSet, test: ImageSet, recipe: Recipe, *, seed: int
    ) -> None:
        super().__init__(UnitMeasure(network, test), recipe)
        self._network, self._data, self._seed = network, train, seed

    def stages(
        self,
        tasks: Sequence[Task],
        after: Collection[int],
        shared: Shared | None = None,
        on_step: OnStep | None = None,
        batches: Iterator[Batch] | None = None,
    ) -> Iterator[tuple[list[TaskState], Shared]]:
        """Train a block of tasks; see Trainer.stages."""
        network, recipe = self._network, self._recipe
        order = batches or block_batches(tasks, self._data, recipe, self._seed)

        def shown_batches() -> Iterator[tuple[Tensor, Tensor]]:
            for batch in order:
                pairs = zip(batch.tasks, batch.index, strict=True)
                shown = [task.images(self._data.flat[own]) for task, own in pairs]
                labels = torch.from_numpy(batch_labels(batch.tasks, self._data, batch.index))
                yield torch.stack([*map(network.drives, shown)]), labels.to(network.device)

        drives = shown_batches()
        shown = unit_masks_in_stages(network.later, drives, len(tasks), recipe, after, on_step)
        for masks in shown:
            planes = [mask.cpu().numpy() for mask in masks]
            yield [TaskState(own) for own in zip(*planes, strict=True)], {}


class UnitMeasure:
    """A function that measures states whose masks are over units.

    The images are divided into batches of up to MEASURED_TOGETHER images. The network normalises
    each batch by the mean and the variance of this batch.

    Args:
        network: the fixed network. Its first layer is computed from pixels that are whole numbers.
        data: the images of the data set, with one channel.
    """

    def __init__(self, network: WholePixels, data: ImageSet) -> None:
        self._network, self._data = network, data

    def __call__(self, task: Task, state: TaskState) -> Measured:
        """Measure the accuracy and the loss of one state on the images of its task."""
        device = self._network.device
        gains = [torch.from_numpy(m).to(device, torch.float32) for m in state.planes]
        speaking = gains[0].nonzero()[:, 0]  # only units with a gain of 1 need drives
        first, *rest = self._network.later
        later, gains = [first[:, speaking], *rest], [gains[0][speaking], *gains[1:]]
        right, loss, num_images = 0, 0.0, 0
        for some in strided(task.members(self._data.labels), MEASURED_TOGETHER):
            drives = self._network.drives(task.images(self._data.flat[some]), speaking)
            labels = torch.from_numpy(task.labels(self._data.labels[some]))
            logits = logits_of_drives(later, gains, drives)
            num_right, its_loss = score_plain(logits.t(), labels.to(device))
            right, loss, num_images = right + num_right, loss + its_loss, num_images + len(some)
        return Measured(right / num_images, loss / num_images)
