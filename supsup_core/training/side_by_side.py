"""The base class of trainers that train several blocks at the same time on one device."""

import sys
from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Integer

from supsup_core.data import ImageSet
from supsup_core.kernels.gpu.memory import free_and_warn
from supsup_core.methods.protocol import Shared
from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training.base import StagedTrainer, part_of
from supsup_core.training.batches import Batch, batch_size, task_batches
from supsup_core.training.protocol import OnStep
from supsup_core.training.resident_blocks import ResidentBlocks, ResidentForm
from supsup_core.training.resident_feed import joined, needs_host

F = TypeVar("F", bound=ResidentForm)
K = TypeVar("K", bound=ResidentBlocks[Any])


class SideBySideTrainer(StagedTrainer, Generic[F, K]):
    """A trainer of several blocks at the same time, as many as fit into the memory of the device.

    A subclass defines `_stages`, `_most_blocks` and `_new`. In the list of base classes, it
    names this class before the class that trains one block. That class trains a block if its images
    come from a stream, or if the host makes them.

    Attributes:
        graphs: whether a CUDA graph repeats the steps on a CUDA device. A change has an effect on
            the next training.
    """

    graphs: bool
    _kept: K | None = None  # the tensors of the last training
    _data: ImageSet
    _seed: int
    # Whether `_stages` also trains a block whose images the host makes.
    _feeds_images = False

    # Largest number of blocks at a time. It is lowered if the memory was too small.
    _limit: int = sys.maxsize

    def stages(
        self,
        tasks: Sequence[Task],
        after: Collection[int],
        shared: Shared | None = None,
        on_step: OnStep | None = None,
        batches: Iterator[Batch] | None = None,
    ) -> Iterator[tuple[list[TaskState], Shared]]:
        """Train a block of tasks; see Trainer.stages.

        `on_step` is called after the host has given a step to the device. The device may finish
        the step later.
        """
        if batches is not None or (self._on_host(tasks) and not self._feeds_images):
            # The class that trains one block has this method.
            yield from super().stages(tasks, after, shared, on_step, batches)  # type: ignore[safe-super]
            return
        for states in self._stages([tasks], after, on_step, shared):
            yield states, {}

    @abstractmethod
    def _stages(
        self,
        blocks: Sequence[Sequence[Task]],
        after: Collection[int],
        on_step: OnStep | None,
        shared: Shared | None = None,
    ) -> Iterator[list[TaskState]]:
        """Train blocks that have the same shape, and yield the states of all tasks, in order.

        If the host makes the images, or if data from earlier tasks are given, there is one block.
        """

    @abstractmethod
    def _most_blocks(self, block: Sequence[Task]) -> int:
        """Return how many blocks like this one can train at the same time, from 1 to `_limit`."""

    @abstractmethod
    def _new(self, form: F) -> K:
        """Make tensors for a form."""

    def _tensors(self, form: F) -> K:
        """Return tensors for a form. If the form has not changed, use the earlier tensors again.

        So a graph is recorded only once for all blocks of the same form.
        """
        kept = self._kept
        if kept is None or (kept.form, kept.graphs) != (form, self.graphs):
            self._kept = kept = None  # frees the old tensors first
            kept = self._kept = self._new(form)
        return kept

    def _shape(self, block: Sequence[Task]) -> tuple[int, int]:
        """Return the numbers of tasks and of images of a batch.

        Blocks for which both are equal can train at the same time.
        """
        return len(block), batch_size(block, self._data, self._recipe)

    def _indices(
        self, blocks: Sequence[Sequence[Task]], num_groups: int
    ) -> Iterator[Integer[np.ndarray, "G N"]]:
        """Yield the image indices of each step, for all groups of tasks; see `joined`."""
        orders = [task_batches(block, self._data, self._recipe, self._seed) for block in blocks]
        return joined(orders, num_groups)

    def _on_host(self, tasks: Sequence[Task]) -> bool:
        """Return whether the host makes the images of each step, so that blocks take turns."""
        return any(map(needs_host, tasks))

    def side_by_side(
        self, blocks: Sequence[Sequence[Task]], on_step: OnStep | None = None
    ) -> list[TaskState]:
        """Train several blocks at the same time; see Trainer.side_by_side.

        Successive blocks with equal shapes form a group. The groups are trained one after another.
        """
        if any(map(self._on_host, blocks)):
            return super().side_by_side(blocks, on_step)
        shapes = [self._shape(block) for block in blocks]
        states: list[TaskState] = []
        for _, group in groupby(range(len(blocks)), key=shapes.__getitem__):
            waiting = [blocks[i] for i in group]
            while waiting:
                size = min(len(waiting), self._most_blocks(waiting[0]))
                share = len(states) / len(blocks[0]) / len(blocks), size / len(blocks)
                found = self._attempted(waiting[:size], part_of(on_step, share, self._recipe.steps))
                if found is not None:
                    states, waiting = states + found, waiting[size:]
        return states

    def _attempted(
        self, blocks: Sequence[Sequence[Task]], on_step: OnStep | None
    ) -> list[TaskState] | None:
        """Train blocks that have the same shape.

        Return None if they do not fit into the memory of the device. After that, at most half as
        many blocks are trained at the same time.
        """
        try:
            (found,) = self._stages(blocks, [self._recipe.steps], on_step)
            return found
        except torch.OutOfMemoryError:
            if len(blocks) == 1:
                raise
        self._kept = None
        self._limit = len(blocks) // 2
        free_and_warn(
            f"{len(blocks)} blocks of {len(blocks[0])} tasks",
            f"training continues with {self._limit} blocks at a time",
        )
        return None
