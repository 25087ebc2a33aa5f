"""Train masks over units on a GPU. All images stay on the GPU, and a CUDA graph repeats a step.

The trainer in units.py computes the same, but its host makes the images of each step. Here, nothing
is copied between host and GPU during the steps, and the host never waits. A block of masks over
units keeps a GPU busy for a small part of the time, so the same tensors hold the tasks of several
blocks. Each block keeps its own batches.
"""

from collections.abc import Collection, Iterator, Sequence

from supsup_core.data import ImageSet
from supsup_core.kernels.gpu.memory import free_bytes
from supsup_core.methods.protocol import Shared
from supsup_core.networks.units import WholePixels
from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training.protocol import Measured, OnStep
from supsup_core.training.recipe import Recipe
from supsup_core.training.resident_feed import steps_of
from supsup_core.training.resident_unit_measure import ResidentUnitMeasure
from supsup_core.training.resident_unit_tensors import ResidentPixels, UnitBlocks, UnitForm
from supsup_core.training.side_by_side import SideBySideTrainer
from supsup_core.training.units import UnitTrainer

# The tensors of blocks may take this fraction of the free memory.
_SHARE = 0.8


class ResidentUnitTrainer(SideBySideTrainer[UnitForm, UnitBlocks], UnitTrainer):
    """A trainer of masks over units by the threshold rule. The arguments are those of UnitTrainer.

    Tasks that change images and tasks that renumber their labels are trained by UnitTrainer, whose
    host makes the images and labels of each step.
    """

    def __init__(
        self,
        network: WholePixels,
        train: ImageSet,
        test: ImageSet,
        recipe: Recipe,
        *,
        seed: int,
        graphs: bool = True,
    ) -> None:
        super().__init__(network, train, test, recipe, seed=seed)
        self.graphs = graphs
        self._measure = self._together = ResidentUnitMeasure(network, test)
        self._images: ResidentPixels | None = None

    def measure_each(
        self, tasks: Sequence[Task], states: Sequence[TaskState], shared: Shared | None = None
    ) -> list[Measured]:
        """Measure the state of each task. The host waits once for all tasks."""
        return self._together.each(tasks, states)

    def _most_blocks(self, block: Sequence[Task]) -> int:
        """Return how many blocks fit into the free memory of the device, at least 1."""
        device = self._network.device
        if device.type != "cuda":
            return self._limit
        _, num_images = self._shape(block)
        widths = self._network.widths
        one, two = (UnitForm.of([block] * num, num_images).num_bytes(widths) for num in (1, 2))
        free = int(_SHARE * free_bytes(device)) - one
        return min(self._limit, max(1, 1 + free // (two - one)))

    def _stages(
        self,
        blocks: Sequence[Sequence[Task]],
        after: Collection[int],
        on_step: OnStep | None,
        shared: Shared | None = None,
    ) -> Iterator[list[TaskState]]:
        """Train blocks that have the same shape; see SideBySideTrainer."""
        _, num_images = self._shape(blocks[0])
        form = UnitForm.of(blocks, num_images)
        made = self._tensors(form)
        made.begin([task for block in blocks for task in block])
        indices = self._indices(blocks, form.groups)
        for _ in steps_of(made.tables, indices, made.advance, after, on_step):
            planes = [mask.cpu().numpy() for mask in made.masks()]
            yield [TaskState(own) for own in zip(*planes, strict=True)]

    def _new(self, form: UnitForm) -> UnitBlocks:
        if self._images is None:
            self._images = ResidentPixels(self._data, self._network.device)
        return UnitBlocks(self._network, self._recipe, self._images, form, graphs=self.graphs)
