"""Train masks over units on a GPU. All images stay on the GPU, and a CUDA graph repeats a step.

The trainer in units.py computes the same, but its host makes the images of each step. Here, nothing
is copied between host and GPU during the steps, and the host never waits.

Blocks of tasks are trained one after another, so the bits of a mask do not depend on other blocks.

Shape letters: B tasks of a block, G groups of tasks that have the same images (1 or B), N images of
a batch, M images of the data set, P pixels of an image, O units of the first hidden layer.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int8, Int64
from torch import Tensor

from supsup_core.data import ImageSet
from supsup_core.kernels.gpu.replay import RepeatedStep
from supsup_core.methods.protocol import Shared
from supsup_core.networks.units import WholePixels
from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training.batches import Batch, batch_size, task_batches
from supsup_core.training.measure import SHIFT
from supsup_core.training.protocol import Measured, OnStep
from supsup_core.training.recipe import Recipe
from supsup_core.training.resident_feed import Tables, joined, needs_host
from supsup_core.training.resident_unit_measure import ResidentUnitMeasure
from supsup_core.training.units import UnitTrainer, summed_loss
from supsup_core.whole import whole_products


class ResidentUnitTrainer(UnitTrainer):
    """A trainer of masks over units by the threshold rule. The arguments are those of UnitTrainer.

    Tasks that change images and tasks that renumber their labels are trained by UnitTrainer, whose
    host makes the images and labels of each step.

    Attributes:
        graphs: whether a CUDA graph repeats the steps on a CUDA device.
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
        self._block: UnitBlock | None = None

    def stages(
        self,
        tasks: Sequence[Task],
        after: Collection[int],
        shared: Shared | None = None,
        on_step: OnStep | None = None,
        batches: Iterator[Batch] | None = None,
    ) -> Iterator[tuple[list[TaskState], Shared]]:
        """Train a block of tasks; see Trainer.stages."""
        if batches is not None or any(map(needs_host, tasks)):
            yield from super().stages(tasks, after, shared, on_step, batches)
            return
        form = UnitForm.of(tasks, batch_size(tasks, self._data, self._recipe))
        block = self._block_of(form)
        block.begin(tasks)
        order = task_batches(tasks, self._data, self._recipe, self._seed)
        indices = joined([order], form.groups)
        for step in range(self._recipe.steps + 1):
            if step in after:
                planes = [mask.cpu().numpy() for mask in block.masks()]
                yield [TaskState(own) for own in zip(*planes, strict=True)], {}
            if step == max(after):
                return
            block.tables.tell(step, indices)
            block.advance()
            if on_step is not None:
                on_step(step + 1)

    def _block_of(self, form: "UnitForm") -> "UnitBlock":
        """Return tensors for a form. If the form has not changed, use the earlier tensors again.

        So a graph is recorded only once for all blocks of the same form.
        """
        if self._images is None:
            self._images = ResidentPixels(self._data, self._network.device)
        kept = self._block
        if kept is None or (kept.form, kept.graphs) != (form, self.graphs):
            self._block = kept = None  # frees the old tensors first
            given = self._network, self._recipe, self._images, form
            kept = self._block = UnitBlock(*given, graphs=self.graphs)
        return kept

    def measure_each(
        self, tasks: Sequence[Task], states: Sequence[TaskState], shared: Shared | None = None
    ) -> list[Measured]:
        """Measure the state of each task. The host waits once for all tasks."""
        return self._together.each(tasks, states)


class ResidentPixels:
    """The training images on a device, as whole numbers.

    Args:
        data: the training images, with one channel.
        device: the device.

    Attributes:
        shown: (M, P + 1) pixels minus 128. The last pixel of each image is black.
        labels: (M,) classes.
    """

    def __init__(self, data: ImageSet, device: torch.device) -> None:
        padded = np.pad(data.flat, ((0, 0), (0, 1))) ^ SHIFT
        self.shown: Int8[Tensor, "M _"] = torch.from_numpy(padded.view(np.int8)).to(device)
        self.labels: Int64[Tensor, " M"] = torch.from_numpy(data.labels.astype(np.int64)).to(device)


@dataclass(frozen=True)
class UnitForm:
    """The numbers that determine the shapes of the tensors of a block.

    Attributes:
        tasks: B, number of tasks.
        groups: G, number of groups of tasks that have the same images.
        images: N, number of images of a batch.
        permutes: whether each task has a permutation of the pixels.
        chooses: whether each task chooses pixels in another way.
    """

    tasks: int
    groups: int
    images: int
    permutes: bool
    chooses: bool

    @classmethod
    def of(cls, tasks: Sequence[Task], num_images: int) -> "UnitForm":
        """Make the form of a block of tasks, whose batches have N images."""
        permutes = all(task.is_permutation for task in tasks)
        chooses = not permutes and tasks[0].source is not None
        groups = 1 if all(task.classes is None for task in tasks) else len(tasks)
        return cls(len(tasks), groups, num_images, permutes, chooses)


class UnitBlock:
    """The tensors of one block. The method `advance` takes a training step of all its tasks.

    Args:
        network: the fixed network.
        recipe: the settings of the training.
        images: the training images.
        form: the numbers that determine the shapes of the tensors.
        graphs: whether a CUDA graph repeats the steps on a CUDA device.

    Attributes:
        tables: the image indices and the optimiser's constants of the next steps.
        form: the argument `form`.
        graphs: the argument `graphs`.
    """

    def __init__(
        self,
        network: WholePixels,
        recipe: Recipe,
        images: ResidentPixels,
        form: UnitForm,
        *,
        graphs: bool,
    ) -> None:
        self._network, self._recipe, self._images = network, recipe, images
        self.form, self.graphs, device = form, graphs, network.device
        self._optimizer = recipe.make_optimizer()
        self.tables = Tables(
            recipe, self._optimizer, form.groups, form.images, torch.float32, device
        )
        shapes = [(form.tasks, later.shape[1]) for later in network.later]
        self._scores = [torch.empty(shape, device=device) for shape in shapes]
        self._states = [self._first_state(score) for score in self._scores]
        num_units, num_pixels = network.signs.shape
        shape = (form.tasks if form.permutes else 1), num_units, num_pixels
        self._signs: Int8[Tensor, "_ O P"] = torch.empty(shape, dtype=torch.int8, device=device)
        self._sources: Int64[Tensor, "B 1 P"] | None = None
        if form.chooses:
            shape = form.tasks, 1, num_pixels
            self._sources = torch.empty(shape, dtype=torch.int64, device=device)
        self._repeated = RepeatedStep(device, graphs=graphs)

    def _first_state(self, score: Tensor) -> tuple[Tensor, ...]:
        # The optimisers also store signs of weights. A gain of a unit has no such sign.
        return self._optimizer.begin(torch.ones_like(score))

    def begin(self, tasks: Sequence[Task]) -> None:
        """Write the tasks' data, the first scores and the optimiser's first state."""
        for score, state in zip(self._scores, self._states, strict=True):
            score.zero_()
            for to, value in zip(state, self._first_state(score), strict=True):
                to.copy_(value)
        signs = self._network.signs.expand(self._signs.shape)
        sources = [task.source for task in tasks if task.source is not None]
        if not sources:
            self._signs.copy_(signs)
            return
        index = torch.from_numpy(np.stack(sources).astype(np.int64)).to(signs.device)[:, None, :]
        if self._sources is None:
            # The columns of the signs are permuted once, instead of the images of each step.
            self._signs.scatter_(2, index.expand(signs.shape), signs)
        else:
            self._sources.copy_(index)
            self._signs.copy_(signs)

    def masks(self) -> list[Tensor]:
        """Return the masks of all tasks, one tensor per hidden layer."""
        return [score >= 0 for score in self._scores]

    def advance(self) -> None:
        """Take one training step of all tasks."""
        self._repeated(self._step)

    def _step(self) -> None:
        tables, recipe = self.tables, self._recipe
        index = tables.index.index_select(0, tables.step)[0].long()
        drives = self._network.drives_of(self._sums(index))
        drives = drives.expand(self.form.tasks, -1, -1)
        labels = self._images.labels.index_select(0, index.flatten()).view(index.shape)
        leaves = [score.detach().requires_grad_() for score in self._scores]
        with torch.enable_grad():
            loss = summed_loss(
                self._network.later,
                leaves,
                drives,
                labels.expand(self.form.tasks, -1),
                recipe.temperature,
            )
        gradients = torch.autograd.grad(loss, leaves)
        constants = tables.constants.index_select(0, tables.step)[0].unbind()
        for score, state, gradient in zip(self._scores, self._states, gradients, strict=True):
            self._optimizer.move(score, state, gradient, constants)
        tables.step.add_(1)

    def _sums(self, index: Int64[Tensor, "G N"]) -> Float32[Tensor, "_ O N"]:
        """Compute the sums of the first layer: one matrix per task, or one for all tasks."""
        shown = self._images.shown.index_select(0, index.flatten()).unflatten(0, index.shape)
        if self._sources is not None:
            shape = self.form.tasks, shown.shape[1], self._sources.shape[2]
            wide = shown.expand(self.form.tasks, -1, -1)
            pixels = wide.gather(2, self._sources.expand(shape))
        else:
            pixels = shown[:, :, :-1]
        if len(pixels) == 1:
            sums = whole_products(self._signs.flatten(0, 1), pixels[0].t())
            return sums.view(*self._signs.shape[:2], -1)
        signs = self._signs.expand(len(pixels), -1, -1)
        pairs = zip(signs, pixels, strict=True)
        return torch.stack([whole_products(own, its.t()) for own, its in pairs])
