"""Train a block of tasks with autograd and torch.optim, for any network, finder and device.

This trainer is the simplest and the slowest. Tests compare the faster trainers with it.

Shape letters: B tasks of the block, N images of a batch.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from supsup_core.data import normalise
from supsup_core.methods.protocol import Method, Shared
from supsup_core.methods.trained_weights import trained_before
from supsup_core.names import NO_CHANGE
from supsup_core.networks.protocol import Network
from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.tasks.shown import ShownImages
from supsup_core.training.base import BlockTrainer
from supsup_core.training.batches import Batch, batch_images, batch_labels, block_batches
from supsup_core.training.descent import Descent
from supsup_core.training.measure import PlainMeasure
from supsup_core.training.protocol import Measured, OnStep


class AutogradTrainer(BlockTrainer[Network, Method]):
    """A trainer that computes gradients by autograd; see BlockTrainer for the arguments."""

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        """A mapping from name to fixed weights, on the trainer's device, in the trainer's dtype."""
        drawn = self._network.weights(self._seed)
        return {name: weight.to(self._device, self._dtype) for name, weight in drawn.items()}

    @cached_property
    def _shown(self) -> ShownImages:
        """The training images, on the trainer's device if it is a GPU."""
        return ShownImages(self._data, self._device)

    def stages(
        self,
        tasks: Sequence[Task],
        after: Collection[int],
        shared: Shared | None = None,
        on_step: OnStep | None = None,
        batches: Iterator[Batch] | None = None,
    ) -> Iterator[tuple[list[TaskState], Shared]]:
        """Train a block of tasks; see Trainer.stages."""
        ids = [task.task_id for task in tasks]
        descent = Descent(
            self._network,
            self._method,
            self._recipe,
            self._weights,
            self._starts(tasks, shared),
            shared,
            task_ids=ids,
            seed=self._seed,
        )
        order = batches or block_batches(tasks, self._data, self._recipe, self._seed)
        last = max(after)
        for step in range(last + 1):
            if step in after:
                yield descent.states(), self._transfer.pass_on(ids, descent.scores, shared)
            if step == last:
                return
            descent.step(step, *self._batch(next(order)))
            if on_step is not None:
                on_step(step + 1)

    def measure(self, task: Task, state: TaskState, shared: Shared | None = None) -> Measured:
        """Measure the accuracy and the loss of one state; see Trainer.measure."""
        trained = trained_before(shared, self._weights)
        if not trained:
            return super().measure(task, state)
        assert isinstance(self._measure, PlainMeasure)
        of_task = self._method.weights_of_task(self._network, task.task_id, self._seed)
        measure = self._measure.with_weights(of_task(trained))
        measured = measure(task, state)
        if not self._method.has_base:
            return measured
        return replace(measured, base_accuracy=measure.without_mask(task).accuracy)

    def _batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Make the images and labels of a batch, which has N images for each of B tasks.

        Returns:
            The normalised images (B, N, *shape), and their labels (B, N).
        """
        if self._device.type == "cpu" or self._recipe.augment != NO_CHANGE:
            shown = batch_images(batch, self._data, self._recipe, self._seed)
            pixels = torch.from_numpy(shown).to(self._device)
        else:
            pairs = zip(batch.tasks, batch.index, strict=True)
            pixels = torch.stack([self._shown.of(task, own) for task, own in pairs])
        labels = torch.from_numpy(batch_labels(batch.tasks, self._data, batch.index))
        labels = labels.to(self._device)
        return normalise(pixels, self._data.mean, self._data.std).to(self._dtype), labels
