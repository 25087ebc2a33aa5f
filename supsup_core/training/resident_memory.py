"""Compute how much memory of a GPU the training of blocks side by side takes, before it is taken.

The numbers are computed from the shapes of all tensors, so this module needs no GPU. They leave out
the memory that CUDA itself takes in each process.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from supsup_core.methods.planes import PlaneMethod
from supsup_core.networks.mlp import MLP
from supsup_core.tasks.protocol import Task
from supsup_core.training.recipe import Recipe
from supsup_core.training.resident_steps import PART_BYTES, PlainSteps
from supsup_core.training.resident_tensors import BlocksForm, Resident, ResidentData

# The tensors of blocks may take this fraction of the free memory.
_SHARE = 0.8
# The largest temporary tensors of a step: this number of tensors with the values of a part of the
# tasks (ResidentLayer.parts), and small tensors.
_PARTS = 6
_SMALL_BYTES = 100_000


@dataclass(frozen=True)
class TrainingMemory:
    """The bytes of memory that blocks of one shape take while they train side by side.

    Attributes:
        first: bytes of the tensors of one block.
        another: bytes of each further block.
        temporary: bytes of temporary tensors, at most.
    """

    first: int
    another: int
    temporary: int

    def needed(self, num_blocks: int) -> int:
        """Return an upper bound of the bytes that a number of blocks takes."""
        return self.first + (num_blocks - 1) * self.another + self.temporary

    def most_blocks(self, free: int) -> int:
        """Return how many blocks fit into a part of `free` bytes, at least 1."""
        left = int(_SHARE * free) - self.needed(1)
        return max(1, 1 + left // self.another)


def training_memory(
    network: MLP,
    method: PlaneMethod,
    recipe: Recipe,
    dtype: torch.dtype,
    parts: PlainSteps,
    block: Sequence[Task],
    num_images: int,
) -> TrainingMemory:
    """Compute the memory that blocks of one shape take; see ResidentTrainer.

    Args:
        network: the fixed network.
        method: the mask finder.
        recipe: the settings of the training.
        dtype: type of the matrix products.
        parts: the object that computes the parts of a step.
        block: the tasks of one block.
        num_images: number of images of a batch.
    """
    data = ResidentData.shapes(network.widths[0])
    one, two = (
        Resident(
            *(network, method, recipe, dtype, parts),
            BlocksForm.of([block] * num, method, num_images),
            data,
            graphs=False,
        )
        for num in (1, 2)
    )
    first, second = (made.num_bytes + made.scratch_bytes for made in (one, two))
    part = max(PART_BYTES, *(layer.scores[0].nbytes for layer in one.layers))
    return TrainingMemory(first, second - first, _PARTS * part + _SMALL_BYTES)
