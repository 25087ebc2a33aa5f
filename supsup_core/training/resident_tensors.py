"""The tensors of blocks that train at the same time on one device, and the order of a step's parts.

Shape letters: T tasks of all blocks, G groups of tasks that have the same images, N images of a
batch, M images of the data set, P pixels of an image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int32, UInt8
from torch import Tensor

from supsup_core.data import ImageSet
from supsup_core.methods.planes import PlaneMethod
from supsup_core.networks.mlp import MLP
from supsup_core.tasks.protocol import Task
from supsup_core.training.batches import share_images
from supsup_core.training.blocks import logit_constant
from supsup_core.training.recipe import Recipe
from supsup_core.training.resident_blocks import ResidentBlocks, ResidentForm
from supsup_core.training.resident_steps import Feed, PlainSteps, ResidentLayer


@dataclass(frozen=True)
class BlocksForm(ResidentForm):
    """The numbers that determine the shapes of the tensors of some blocks.

    Attributes:
        chooses: whether the tasks choose pixels, so that every group has its own pixels.
    """

    chooses: bool

    @classmethod
    def of(
        cls, blocks: Sequence[Sequence[Task]], method: PlaneMethod, num_images: int
    ) -> "BlocksForm":
        """Make the form of blocks that have equal numbers of tasks and images.

        Args:
            blocks: the blocks of tasks.
            method: the mask finder.
            num_images: N, the number of images of a batch.
        """
        tasks = [task for block in blocks for task in block]
        chooses = not reorders_columns(tasks, method) and tasks[0].source is not None
        num_groups = len(blocks) if share_images(tasks) and not chooses else len(tasks)
        return cls(len(tasks), num_groups, num_images, chooses)


def reorders_columns(tasks: Sequence[Task], method: PlaneMethod) -> bool:
    """Return whether the columns of the first layer are permuted instead of the tasks' images."""
    return method.reorders and all(task.is_permutation for task in tasks)


@dataclass(frozen=True, eq=False)  # == of tensors gives a tensor, not one bool
class ResidentData:
    """The training images on a device.

    Attributes:
        images: (M, P) pixels.
        labels: (M,) classes.
        mean: mean of pixel / 255.
        std: standard deviation of pixel / 255.
    """

    images: UInt8[Tensor, "M P"]
    labels: Int32[Tensor, " M"]
    mean: float
    std: float

    @classmethod
    def of(cls, data: ImageSet, device: torch.device) -> "ResidentData":
        """Copy an image set with one channel to a device."""
        labels = torch.from_numpy(data.labels.astype(np.int32)).to(device)
        return cls(torch.from_numpy(data.flat).to(device), labels, data.mean[0], data.std[0])

    @classmethod
    def shapes(cls, num_pixels: int) -> "ResidentData":
        """Make one image that has a shape and no memory: tensors on the device "meta"."""
        nothing = torch.device("meta")
        images = torch.empty((1, num_pixels), dtype=torch.uint8, device=nothing)
        return cls(images, torch.empty(1, dtype=torch.int32, device=nothing), 0.0, 1.0)

    @property
    def num_bytes(self) -> int:
        """Bytes of images and labels."""
        return self.images.nbytes + self.labels.nbytes


class Resident(ResidentBlocks[BlocksForm]):
    """The tensors of some blocks; see ResidentBlocks.

    Args:
        network: the fixed network.
        method: the mask finder.
        recipe: the settings of the training.
        dtype: type of the matrix products.
        parts: the object that computes the parts of a step.
        form: the numbers that determine the shapes of the tensors.
        data: the training images, on the device of all tensors.
        graphs: whether a CUDA graph repeats the steps on a CUDA device.

    Attributes:
        layers: the layers of all tasks.
        feed: the data that the steps read.
        num_bytes: bytes of all tensors, without the images of the data set.
        scratch_bytes: bytes of the largest temporary tensors of a step.
    """

    def __init__(
        self,
        network: MLP,
        method: PlaneMethod,
        recipe: Recipe,
        dtype: torch.dtype,
        parts: PlainSteps,
        form: BlocksForm,
        data: ResidentData,
        *,
        graphs: bool,
    ) -> None:
        device, accurate = data.images.device, torch.promote_types(dtype, torch.float32)
        super().__init__(recipe, form, accurate, device, graphs=graphs)
        self._steps, self._scale = parts, logit_constant(network, recipe)
        num_pixels = data.images.shape[1]

        def empty(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self.feed = Feed(
            data.images,
            data.labels,
            data.mean,
            data.std,
            self.tables.index,
            self.tables.constants,
            self.tables.step,
            empty(form.groups, num_pixels, dtype=torch.int32) if form.chooses else None,
        )
        self._images = empty(form.groups, form.images, num_pixels)
        self.layers, self._sent, self._deltas = [], [], []
        for tensor in network.tensors:
            shape = (form.tasks, *tensor.shape)
            state = self._optimizer.begin(torch.ones((1, 1, 1), dtype=accurate))
            self.layers.append(
                ResidentLayer(
                    tensor,
                    method,
                    self._optimizer,
                    empty(*shape, dtype=accurate),
                    tuple(empty(*shape, dtype=part.dtype) for part in state),
                    empty(*shape, dtype=parts.masked_dtype(dtype, method.planes(tensor))),
                )
            )
            self._sent.append(empty(form.tasks, tensor.shape[0], form.images))
            self._deltas.append(empty(form.tasks, tensor.shape[0], form.images))
        self.num_bytes = sum(tensor.nbytes for tensor in self._tensors())
        self.scratch_bytes = max(map(parts.scratch_bytes, self.layers))

    def _tensors(self) -> Iterator[Tensor]:
        """Yield all tensors of these blocks, without the images of the data set."""
        yield from (self.feed.table, self.feed.constants, self.feed.step, self._images)
        yield from (*self._sent, *self._deltas)
        if self.feed.sources is not None:
            yield self.feed.sources
        for layer in self.layers:
            yield from (layer.scores, *layer.state, layer.masked)

    def _step(self) -> None:
        feed, steps, last = self.feed, self._steps, len(self.layers) - 1
        steps.pick(feed, self._images)
        received = [self._images.transpose(1, 2), *self._sent[:-1]]
        for i, layer in enumerate(self.layers):
            steps.forward(layer.masked, received[i], self._sent[i], relu=i < last)
        delta = self._sent[-1]
        steps.logit_gradient(delta, feed, self._scale)
        for i in reversed(range(len(self.layers))):
            layer, sent = self.layers[i], delta
            if i:
                delta = self._deltas[i - 1]
                steps.back(layer.masked, sent, self._sent[i - 1], delta)
            steps.learn(layer, sent, received[i], feed)
        feed.step.add_(1)
