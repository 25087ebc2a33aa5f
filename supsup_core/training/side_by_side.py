"""The base class of trainers that train several blocks at the same time on one device."""

import sys
from abc import abstractmethod
from collections.abc import Hashable, Sequence
from itertools import groupby

import torch

from supsup_core.kernels.gpu.memory import free_and_warn
from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training.base import StagedTrainer, part_of
from supsup_core.training.protocol import OnStep
from supsup_core.training.resident_feed import needs_host


class SideBySideTrainer(StagedTrainer):
    """A trainer of several blocks at the same time, as many as fit into the memory of the device.

    A subclass defines `_shape`, `_most_blocks`, `_trained` and `_forget`. In the list of base
    classes, it names this class before the class that trains one block.
    """

    # Largest number of blocks at a time. It is lowered if the memory was too small.
    _limit: int = sys.maxsize

    @abstractmethod
    def _shape(self, block: Sequence[Task]) -> Hashable:
        """Return a value that is equal for blocks that can train at the same time."""

    @abstractmethod
    def _most_blocks(self, block: Sequence[Task]) -> int:
        """Return how many blocks like this one can train at the same time, from 1 to `_limit`."""

    @abstractmethod
    def _trained(self, blocks: Sequence[Sequence[Task]], on_step: OnStep | None) -> list[TaskState]:
        """Train blocks with equal shapes to the end, at the same time."""

    @abstractmethod
    def _forget(self) -> None:
        """Free the tensors of earlier blocks."""

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
            return self._trained(blocks, on_step)
        except torch.OutOfMemoryError:
            if len(blocks) == 1:
                raise
        self._forget()
        self._limit = len(blocks) // 2
        free_and_warn(
            f"{len(blocks)} blocks of {len(blocks[0])} tasks",
            f"training continues with {self._limit} blocks at a time",
        )
        return None
