"""Train blocks by autograd on a GPU. All images stay on the GPU, and a CUDA graph repeats a step.

The trainer in autograd.py computes the same, but its host chooses the images of each step and takes
the optimiser's step. Here, nothing is copied between host and GPU during the steps, and the host
never waits. The same tensors hold the tasks of several blocks, and each block keeps its own
batches. A finder's `after_step` is not recorded. The host calls it after each step.

Images that do not fit into the memory of the GPU, tasks that compute new pixels or renumber their
labels, and images that change at random are made by the host. Each step then has two copies. The
same steps use these images, so the masks do not depend on the memory of the GPU.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property

import torch

from supsup_core.kernels.gpu.memory import free_bytes
from supsup_core.methods.protocol import Shared
from supsup_core.names import NO_CHANGE
from supsup_core.networks.protocol import Network
from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training.autograd import AutogradTrainer
from supsup_core.training.batches import (
    batch_images,
    batch_labels,
    block_batches,
)
from supsup_core.training.protocol import OnStep
from supsup_core.training.resident_autograd_tensors import (
    AutogradBlocks,
    AutogradForm,
    ScoreForm,
    score_forms,
)
from supsup_core.training.resident_feed import steps_of
from supsup_core.training.side_by_side import SideBySideTrainer

# The tensors of blocks may take this fraction of the free memory.
_SHARE = 0.8
# Blocks train one after another if one block has this number of activations in a step. An H100 is
# busy with a step of LeNet 300-100 with 256 tasks of 128 images, which has 2^25.7 activations
# (benchmarks/gpu.py).
_BUSY_ACTIVATIONS = 2**26


def busy_blocks(network: Network, num_tasks: int, num_images: int) -> int:
    """Return how many blocks keep a GPU busy, at least 1.

    Args:
        network: the fixed network.
        num_tasks: number of tasks of a block.
        num_images: number of images of a batch.
    """
    activations = num_tasks * num_images * max(1, network.num_activations)
    return max(1, _BUSY_ACTIVATIONS // activations)


class ResidentAutogradTrainer(SideBySideTrainer[AutogradForm, AutogradBlocks], AutogradTrainer):
    """A trainer of several blocks at the same time, for any network.

    The arguments are those of BlockTrainer. All steps of the finder must be equal
    (Method.has_equal_steps), and no later task may need data from the training of a task.
    """

    graphs = True
    _feeds_images = True

    @cached_property
    def _forms(self) -> dict[str, ScoreForm]:
        """A mapping from name to the form of a task's scores."""
        accurate = torch.promote_types(self._dtype, torch.float32)
        return score_forms(self._network, self._method, self._recipe, self._seed, accurate)

    def _on_host(self, tasks: Sequence[Task]) -> bool:
        return (
            super()._on_host(tasks)
            or self._recipe.augment != NO_CHANGE
            or self._shown.pixels is None
        )

    def _most_blocks(self, block: Sequence[Task]) -> int:
        """Return how many blocks keep the device busy and fit into its free memory, at least 1."""
        num_tasks, num_images = self._shape(block)
        most = min(self._limit, busy_blocks(self._network, num_tasks, num_images))
        if self._device.type != "cuda":
            return most
        form = AutogradForm.of([block], num_images, fed=False)
        num_values = self._data.flat.shape[1]
        each = form.num_bytes(self._network, self._forms, num_values, self._dtype)
        return min(most, max(1, int(_SHARE * free_bytes(self._device)) // each))

    def _stages(
        self,
        blocks: Sequence[Sequence[Task]],
        after: Collection[int],
        on_step: OnStep | None,
        shared: Shared | None = None,
    ) -> Iterator[list[TaskState]]:
        """Train blocks that have the same shape; see SideBySideTrainer."""
        tasks, (_, num_images) = [t for block in blocks for t in block], self._shape(blocks[0])
        form = AutogradForm.of(blocks, num_images, fed=self._on_host(tasks))
        made = self._tensors(form)
        made.begin(tasks, self._starts(tasks, shared), shared, self._seed)
        advance = self._fed(made, tasks) if form.fed else made.advance
        indices = self._indices(blocks, form.groups)
        for _ in steps_of(made.tables, indices, advance, after, on_step):
            yield made.states()

    def _fed(self, made: AutogradBlocks, tasks: Sequence[Task]) -> Callable[[], None]:
        """Return a function that makes the images of a step on the host, and takes the step."""
        data, recipe, seed = self._data, self._recipe, self._seed
        order = block_batches(tasks, data, recipe, seed)

        def advance() -> None:
            batch = next(order)
            pixels = batch_images(batch, data, recipe, seed)
            made.feed(pixels, batch_labels(tasks, data, batch.index))
            made.advance()

        return advance

    def _new(self, form: AutogradForm) -> AutogradBlocks:
        given = self._network, self._method, self._recipe, self._weights, self._forms
        images = self._data, self._shown.pixels
        return AutogradBlocks(*given, *images, form, graphs=self.graphs)
