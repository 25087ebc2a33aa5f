"""The tensors of blocks whose masks over units train at the same time on one device.

Shape letters: T tasks of all blocks, G groups of tasks that have the same images (the blocks, or
the tasks), B tasks of a group, N images of a batch, M images of the data set, P pixels of an image,
O units of the first hidden layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int8, Int64
from torch import Tensor

from supsup_core.data import ImageSet
from supsup_core.networks.units import WholePixels
from supsup_core.tasks.protocol import Task
from supsup_core.training.batches import share_images
from supsup_core.training.measure import SHIFT
from supsup_core.training.recipe import Recipe
from supsup_core.training.resident_blocks import ResidentBlocks, ResidentForm
from supsup_core.training.units import summed_loss
from supsup_core.whole_products import whole_products

# Each activation of a step counts with this number of float32 tensors: the values of the forward
# pass, which autograd keeps, and their gradients. Measured: at most 3.3 on a pretended GPU.
_TENSORS_PER_ACTIVATION = 5


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

    @property
    def num_bytes(self) -> int:
        """Bytes of images and labels."""
        return self.shown.nbytes + self.labels.nbytes


@dataclass(frozen=True)
class UnitForm(ResidentForm):
    """The numbers that determine the shapes of the tensors of some blocks.

    Attributes:
        permutes: whether each task has a permutation of the pixels.
        chooses: whether each task chooses pixels in another way.
    """

    permutes: bool
    chooses: bool

    @classmethod
    def of(cls, blocks: Sequence[Sequence[Task]], num_images: int) -> "UnitForm":
        """Make the form of blocks with equal numbers of tasks, whose batches have N images."""
        tasks = [task for block in blocks for task in block]
        permutes = all(task.is_permutation for task in tasks)
        chooses = not permutes and tasks[0].source is not None
        groups = len(blocks) if share_images(tasks) else len(tasks)
        return cls(len(tasks), groups, num_images, permutes, chooses)

    def num_bytes(self, widths: Sequence[int]) -> int:
        """Return an upper bound of the bytes that a step of all tasks needs on the device.

        The images of the data set are not counted.

        Args:
            widths: number of units of the input, of each hidden layer, and of the output.
        """
        num_pixels, num_units, *_ = widths
        activations = 4 * _TENSORS_PER_ACTIVATION * sum(widths[1:]) * self.images
        signs = num_units * num_pixels * self.permutes
        # The chosen pixels are one byte each. Their indices are eight bytes each.
        chosen = num_pixels * (8 + 3 * self.images) * self.chooses
        shown = self.groups * self.images * 4 * num_pixels
        return self.tasks * (activations + signs + chosen) + shown + num_units * num_pixels


class UnitBlocks(ResidentBlocks[UnitForm]):
    """The tensors of some blocks; see ResidentBlocks.

    Args:
        network: the fixed network.
        recipe: the settings of the training.
        images: the training images.
        form: the numbers that determine the shapes of the tensors.
        graphs: whether a CUDA graph repeats the steps on a CUDA device.
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
        device = network.device
        super().__init__(recipe, form, torch.float32, device, graphs=graphs)
        self._network, self._recipe, self._images = network, recipe, images
        shapes = [(form.tasks, later.shape[1]) for later in network.later]
        self._scores = [torch.empty(shape, device=device) for shape in shapes]
        self._states = [self._first_state(score) for score in self._scores]
        num_units, num_pixels = network.signs.shape
        shape = (form.tasks if form.permutes else 1), num_units, num_pixels
        self._signs: Int8[Tensor, "_ O P"] = torch.empty(shape, dtype=torch.int8, device=device)
        self._sources: Int64[Tensor, "T 1 P"] | None = None
        if form.chooses:
            shape = form.tasks, 1, num_pixels
            self._sources = torch.empty(shape, dtype=torch.int64, device=device)

    def begin(self, tasks: Sequence[Task]) -> None:
        """Write the tasks' data, the first scores and the optimiser's first state."""
        for score, state in zip(self._scores, self._states, strict=True):
            score.zero_()
            self._restart(score, state)
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

    def _step(self) -> None:
        tables, recipe = self.tables, self._recipe
        index = tables.index.index_select(0, tables.step)[0].long()
        drives = self._of_tasks(self._network.drives_of(self._sums(index)))
        labels = self._images.labels.index_select(0, index.flatten()).view(index.shape)
        leaves = [score.detach().requires_grad_() for score in self._scores]
        with torch.enable_grad():
            loss = summed_loss(
                self._network.later, leaves, drives, self._of_tasks(labels), recipe.temperature
            )
        gradients = torch.autograd.grad(loss, leaves)
        constants = tables.constants.index_select(0, tables.step)[0].unbind()
        for score, state, gradient in zip(self._scores, self._states, gradients, strict=True):
            self._optimizer.move(score, state, gradient, constants)
        tables.step.add_(1)

    def _sums(self, index: Int64[Tensor, "G N"]) -> Float32[Tensor, "_ O N"]:
        """Compute the sums of the first layer: one matrix per task, or one per group.

        They are whole numbers without rounding. So they do not depend on the way of computing.
        """
        shown = self._images.shown.index_select(0, index.flatten()).unflatten(0, index.shape)
        pixels = shown[:, :, :-1]
        if self.form.permutes:
            of_groups = self._signs.view(len(pixels), -1, pixels.shape[2])  # (G, B O, P)
            pairs = zip(of_groups, pixels, strict=True)
            sums = torch.stack([whole_products(own, its.t()) for own, its in pairs])
            return sums.view(*self._signs.shape[:2], -1)
        if self._sources is not None:
            wide = self._of_tasks(shown)
            pixels = wide.gather(2, self._sources.expand(*wide.shape[:2], -1))
        sums = whole_products(self._signs[0], pixels.flatten(0, 1).t())
        return sums.view(-1, *pixels.shape[:2]).transpose(0, 1)
