"""Train a block of tasks with autograd and torch.optim, for any network, finder and device.

This trainer is the simplest and the slowest. Tests compare the faster trainers with it.

Shape letters: B tasks of the block, N images of a batch, S outputs.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from supsup_core.data import normalise
from supsup_core.methods.protocol import Method, Shared
from supsup_core.networks.protocol import Network
from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training.base import BlockTrainer
from supsup_core.training.batches import Batch, batch_images, batch_labels, block_batches
from supsup_core.training.measure import PlainMeasure
from supsup_core.training.protocol import Measured, OnStep


class AutogradTrainer(BlockTrainer[Network, Method]):
    """A trainer that computes gradients by autograd; see BlockTrainer for the arguments."""

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        """A mapping from name to fixed weights, on the trainer's device, in the trainer's dtype."""
        drawn = self._network.weights(self._seed)
        return {name: weight.to(self._device, self._dtype) for name, weight in drawn.items()}

    def stages(
        self,
        tasks: Sequence[Task],
        after: Collection[int],
        shared: Shared | None = None,
        on_step: OnStep | None = None,
        batches: Iterator[Batch] | None = None,
    ) -> Iterator[tuple[list[TaskState], Shared]]:
        """Train a block of tasks; see Trainer.stages."""
        recipe, method, network = self._recipe, self._method, self._network
        scores = self._begin(tasks, shared)
        floats = self._statistics(len(tasks))
        optimizer = recipe.torch_optimizer(list(scores.values()))
        order = batches or block_batches(tasks, self._data, recipe, self._seed)
        last = max(after)
        for step in range(last + 1):
            if step in after:
                states = with_floats(method.end(network, scores), floats)
                ids = [task.task_id for task in tasks]
                yield states, self._transfer.pass_on(ids, scores, shared)
            if step == last:
                return
            images, labels = self._batch(next(order))
            optimizer.param_groups[0]["lr"] = recipe.learning_rate_at(step)
            optimizer.zero_grad()  # the optimiser changes no tensor that has no gradient
            trained = method.trained_names(network, scores.keys(), step, recipe.steps)
            for name, score in scores.items():
                score.requires_grad_(name in trained)
            self._loss(scores, floats, images, labels).backward()
            optimizer.step()
            with torch.no_grad():
                method.after_step(scores, shared, step + 1, recipe.steps)
            if on_step is not None:
                on_step(step + 1)

    def measure(self, task: Task, state: TaskState, shared: Shared | None = None) -> Measured:
        """Measure the accuracy and the loss of one state; see Trainer.measure."""
        trained = {n: values for n, values in (shared or {}).items() if n in self._weights}
        if not trained:
            return super().measure(task, state)
        assert isinstance(self._measure, PlainMeasure)
        return self._measure.with_weights(trained)(task, state)

    def _begin(self, tasks: Sequence[Task], shared: Shared | None) -> dict[str, Tensor]:
        """Make the first scores of B tasks, in float32 or float64.

        Returns:
            A mapping from name to the scores of all tasks, (B, ...).
        """
        accurate = torch.promote_types(self._dtype, torch.float32)
        starts = self._starts(tasks, shared)
        return {
            name: torch.from_numpy(np.stack([start[name] for start in starts]))
            .to(self._device, accurate)
            .requires_grad_()
            for name in starts[0]
        }

    def _statistics(self, num_tasks: int) -> dict[str, Tensor]:
        """Make the values that the network's floats have before the first step.

        Returns:
            A mapping from name to the values of all B tasks, (B, *shape).
        """
        accurate = torch.promote_types(self._dtype, torch.float32)
        return {
            spec.name: torch.full(
                (num_tasks, *spec.shape), spec.initial, dtype=accurate, device=self._device
            )
            for spec in self._network.float_specs()
        }

    def _batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Make the images and labels of a batch, which has N images for each of B tasks.

        Returns:
            The normalised images (B, N, *shape), and their labels (B, N).
        """
        shown = batch_images(batch, self._data, self._recipe, self._seed)
        pixels = torch.from_numpy(shown).to(self._device)
        labels = torch.from_numpy(batch_labels(batch.tasks, self._data, batch.index))
        labels = labels.to(self._device)
        return normalise(pixels, self._data.mean, self._data.std).to(self._dtype), labels

    def _loss(
        self,
        scores: Mapping[str, Tensor],
        floats: Mapping[str, Tensor],
        images: Tensor,
        labels: Tensor,
    ) -> Tensor:
        """Compute the mean cross-entropy of each task, and sum it over the tasks.

        Because the losses are summed, each task gets the same gradient as in a training of its own.
        """
        gains = {
            name: gain.to(self._dtype)
            for name, gain in self._method.gains(self._network, scores).items()
        }
        trained = self._method.trained_weights(self._network, scores)
        weights = self._weights | {n: weight.to(self._dtype) for n, weight in trained.items()}
        logits = self._network.logits(weights, gains, images, floats or None, track=bool(floats))
        accurate = torch.promote_types(logits.dtype, torch.float32)
        flat = logits.to(accurate).flatten(0, 1) / self._recipe.temperature
        loss = torch.nn.functional.cross_entropy(flat, labels.flatten(), reduction="sum")
        return loss / labels.shape[1]


def with_floats(states: Sequence[TaskState], floats: Mapping[str, Tensor]) -> list[TaskState]:
    """Add the network's floats to the B states of a block.

    Args:
        states: the states, without the network's floats.
        floats: a mapping from name to the values of all tasks, (B, *shape).
    """
    stored = {name: values.detach().cpu().numpy() for name, values in floats.items()}
    return [
        TaskState(
            state.planes, {**state.floats, **{name: v[b, ...].copy() for name, v in stored.items()}}
        )
        for b, state in enumerate(states)
    ]
