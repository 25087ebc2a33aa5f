"""The tensors of blocks that train at the same time on one device, and the order of a step's parts.

Shape letters: T tasks of all blocks, G groups of tasks that have the same images, N images of a
batch, M images of the data set, P pixels of an image.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int32, UInt8
from torch import Tensor

from supsup_core.data import ImageSet
from supsup_core.methods.protocol import KeepMethod
from supsup_core.networks.mlp import MLP
from supsup_core.training.blocks import logit_scale
from supsup_core.training.recipe import Recipe
from supsup_core.training.resident_steps import Feed, PlainSteps, ResidentLayer

# Number of steps of the tables of image indices and constants. While the device works on the steps
# of a table, the host draws the order of the images for the next steps.
_TABLE_STEPS = 128


@dataclass(frozen=True)
class BlocksForm:
    """The numbers that determine the shapes of the tensors of some blocks.

    Attributes:
        tasks: T, number of tasks of all blocks.
        groups: G, number of groups of tasks that have the same images.
        images: N, number of images of a batch.
        chooses: whether the tasks choose pixels, so that every group has its own pixels.
    """

    tasks: int
    groups: int
    images: int
    chooses: bool


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


class Resident:
    """The tensors of some blocks. The method `advance` takes a training step with them.

    Args:
        network: the fixed network.
        method: the mask finder.
        recipe: the settings of the training.
        dtype: type of the matrix products.
        parts: the object that computes the parts of a step.
        form: the numbers that determine the shapes of the tensors.
        data: the training images, on the device of all tensors.

    Attributes:
        layers: the layers of all tasks.
        feed: the data that the steps read.
    """

    def __init__(
        self,
        network: MLP,
        method: KeepMethod,
        recipe: Recipe,
        dtype: torch.dtype,
        parts: PlainSteps,
        form: BlocksForm,
        data: ResidentData,
    ) -> None:
        self.form, self._steps, self._scale = form, parts, logit_scale(network, recipe)
        device, accurate = data.images.device, torch.promote_types(dtype, torch.float32)
        optimizer = recipe.make_optimizer()
        num_constants = len(optimizer.constants(recipe.learning_rate, 1))
        self.num_steps = max(1, min(recipe.steps, _TABLE_STEPS))
        num_pixels = data.images.shape[1]

        def empty(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self.feed = Feed(
            data.images,
            data.labels,
            data.mean,
            data.std,
            empty(self.num_steps, form.groups, form.images, dtype=torch.int32),
            empty(self.num_steps, num_constants, dtype=accurate),
            torch.zeros(1, dtype=torch.int32, device=device),
            empty(form.groups, num_pixels, dtype=torch.int32) if form.chooses else None,
        )
        self._images = empty(form.groups, form.images, num_pixels)
        self.layers, self._sent, self._deltas = [], [], []
        for tensor in network.tensors:
            shape = (form.tasks, *tensor.shape)
            state = optimizer.begin(torch.ones((1, 1, 1), dtype=accurate))
            self.layers.append(
                ResidentLayer(
                    tensor,
                    method,
                    optimizer,
                    empty(*shape, dtype=accurate),
                    tuple(empty(*shape, dtype=part.dtype) for part in state),
                    empty(*shape, dtype=self._steps.masked_dtype(dtype)),
                )
            )
            self._sent.append(empty(form.tasks, tensor.shape[0], form.images))
            self._deltas.append(empty(form.tasks, tensor.shape[0], form.images))
        self._advance: Callable[[], None] = self._first_advance
        self.num_bytes = sum(tensor.nbytes for tensor in self._tensors())

    def _tensors(self) -> Iterator[Tensor]:
        """Yield all tensors of these blocks, without the images of the data set."""
        yield from (self.feed.table, self.feed.constants, self.feed.step, self._images)
        yield from (*self._sent, *self._deltas)
        if self.feed.sources is not None:
            yield self.feed.sources
        for layer in self.layers:
            yield from (layer.scores, *layer.state, layer.masked)

    def advance(self) -> None:
        """Take one training step of all tasks."""
        self._advance()

    def _first_advance(self) -> None:
        """Take the first step. On a CUDA device, then record a step as a CUDA graph.

        The first step compiles or loads the kernels, because this is not allowed in a recording.
        Later steps replay the graph.
        """
        self._launch()
        self._advance = self._launch
        if self._images.device.type == "cuda":
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._launch()
            self._advance = graph.replay

    def _launch(self) -> None:
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
