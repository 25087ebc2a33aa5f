"""The parts of a training step for many tasks, in torch. triton_steps.py has faster kernels.

No part copies data from or to the host, and no part waits for the device. All tensors keep their
addresses. So a CUDA graph can repeat a step.

Shape letters: T tasks, G groups of tasks that have the same images, N images of a batch, P values
of a task's image, O outputs and I inputs of a layer, S outputs of the network, C constants of a
step, M images of the data set, Q pixels of an image of the data set, Z steps whose constants are
in one table, B tasks of a part.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int32, UInt8, UInt64
from torch import Tensor

from supsup_core.data import normalise
from supsup_core.kernels.cross_entropy import logit_gradient_plain
from supsup_core.methods.planes import PlaneMethod
from supsup_core.networks.protocol import MaskedTensor
from supsup_core.states.layout import PlaneSpec
from supsup_core.training.layers import score_gradients
from supsup_core.training.optimizers import Optimizer

# Tasks are prepared in parts, so that the temporary tensors of a part have at most this many bytes.
PART_BYTES = 256_000_000


@dataclass(frozen=True, eq=False)  # == of tensors gives a tensor, not one bool
class Feed:
    """The data that the steps read, all on the device.

    Attributes:
        images: (M, Q) pixels of the training images.
        labels: (M,) class of each image.
        mean: mean of pixel / 255.
        std: standard deviation of pixel / 255.
        table: (Z, G, N) for each step, the indices of the images of each group.
        constants: (Z, C) for each step, the constants of the optimiser.
        step: (1,) the index of the row of `table` and `constants` that the current step reads.
        sources: (G, P) for each value of a task's image, the index of a pixel in the image of the
            data set. The index Q stands for black. None if the tasks do not choose pixels.
    """

    images: UInt8[Tensor, "M Q"]
    labels: Int32[Tensor, " M"]
    mean: float
    std: float
    table: Int32[Tensor, "Z G N"]
    constants: Float[Tensor, "Z C"]
    step: Int32[Tensor, "1"]
    sources: Int32[Tensor, "G P"] | None


@dataclass(frozen=True, eq=False)  # == of tensors gives a tensor, not one bool
class ResidentLayer:
    """One layer, for all tasks.

    Attributes:
        tensor: the masked tensor.
        method: the finder.
        optimizer: the optimiser of the scores.
        scores: (T, O, I) scores.
        state: the optimiser's state, tensors (T, O, I). The sign bits of the first tensor are the
            signs of the weights.
        masked: (T, O, I) masked signs: the signs of the weights times the gains.
    """

    tensor: MaskedTensor
    method: PlaneMethod
    optimizer: Optimizer
    scores: Float[Tensor, "T O I"]
    state: tuple[Tensor, ...]
    masked: Tensor

    def parts(self) -> Iterator[slice]:
        """Yield ranges of tasks, so that the scores of a range have at most PART_BYTES bytes."""
        num_bytes = self.scores[0].numel() * self.scores.element_size()
        size = max(1, PART_BYTES // num_bytes)
        for start in range(0, len(self.scores), size):
            yield slice(start, start + size)

    def choose(self) -> None:
        """Compute the masked signs from the scores."""
        for part in self.parts():
            signs = self.optimizer.signs(tuple(values[part] for values in self.state))
            gains = self.method.gain_of(self.tensor, self.scores[part])
            self.masked[part].copy_(signs * gains)

    def bits(self, part: slice) -> Sequence[Bool[Tensor, "B O I"]]:
        """Compute the planes of a range of tasks from the scores; see PlaneMethod.choose."""
        return self.method.choose(self.tensor, self.scores[part])


class PlainSteps:
    """The parts of a training step, with torch on any device."""

    def masked_dtype(self, dtype: torch.dtype, planes: Sequence[PlaneSpec]) -> torch.dtype:
        """Return the type of the masked signs of a layer.

        Args:
            dtype: the type of the matrix products.
            planes: the planes of the layer's masked tensor, which determine the gains.
        """
        return dtype

    def scratch_bytes(self, layer: ResidentLayer) -> int:
        """Return the bytes of the gradients of a layer, which exist during a step only."""
        return layer.masked.nbytes

    def pick(self, feed: Feed, out: Float[Tensor, "G N P"]) -> None:
        """Write the normalised images of the current step into `out`."""
        index = feed.table.index_select(0, feed.step)[0]
        pixels = feed.images.index_select(0, index.flatten()).unflatten(0, index.shape)
        if feed.sources is not None:
            padded = torch.nn.functional.pad(pixels, (0, 1))
            shape = out.shape
            pixels = padded.gather(2, feed.sources[:, None, :].expand(shape).long())
        out.copy_(normalise(pixels, (feed.mean,), (feed.std,)))

    def forward(
        self,
        masked: Float[Tensor, "T O I"],
        x: Float[Tensor, "G I N"],
        out: Float[Tensor, "T O N"],
        *,
        relu: bool,
    ) -> None:
        """Write the outputs of a layer: masked @ x for each task, with the images of its group.

        Args:
            masked: masked signs. The tasks of a group follow each other.
            x: the inputs of the layer, for each group.
            out: the tensor for the outputs.
            relu: whether negative outputs become 0.
        """
        torch.bmm(_grouped(masked, len(x)), x, out=_grouped(out, len(x)))
        if relu:
            out.relu_()

    def logit_gradient(self, logits: Float[Tensor, "T S N"], feed: Feed, scale: float) -> None:
        """Replace the logits by the gradient of the mean cross-entropy of softmax(scale * logits).

        Args:
            logits: the logits, not yet multiplied by `scale`.
            feed: the data of the step. The labels are read from it.
            scale: the factor of the logits.
        """
        index = feed.table.index_select(0, feed.step)[0]
        labels = feed.labels.index_select(0, index.flatten()).view(index.shape).long()
        of_tasks = labels.repeat_interleave(len(logits) // len(labels), dim=0)
        logits.copy_(logit_gradient_plain(logits, of_tasks, scale))

    def back(
        self,
        masked: Float[Tensor, "T O I"],
        delta: Float[Tensor, "T O N"],
        active: Float[Tensor, "T I N"],
        out: Float[Tensor, "T I N"],
    ) -> None:
        """Write the gradient with respect to the sums of the previous layer, before its ReLU.

        Args:
            masked: masked signs of the layer.
            delta: gradient with respect to the layer's outputs.
            active: the inputs of the layer, which are the outputs of the previous layer's ReLU. If
                an input is 0, its gradient is 0.
            out: the tensor for the gradient.
        """
        torch.bmm(masked.transpose(1, 2), delta, out=out)
        out.mul_(active > 0)

    def learn(
        self,
        layer: ResidentLayer,
        delta: Float[Tensor, "T O N"],
        x: Float[Tensor, "G I N"],
        feed: Feed,
    ) -> None:
        """Take a step of the optimiser: change the scores, the state and the masked signs.

        Args:
            layer: the layer.
            delta: gradient with respect to the layer's outputs. The tasks of a group follow each
                other.
            x: the inputs of the layer, for each group.
            feed: the data of the step. The optimiser's constants are read from it.
        """
        constants = feed.constants.index_select(0, feed.step)[0].unbind()
        product = torch.bmm(_grouped(delta, len(x)), x.transpose(1, 2))
        gradients = product.view(layer.scores.shape)
        for part in layer.parts():
            scores, state = layer.scores[part], tuple(values[part] for values in layer.state)
            signs = layer.optimizer.signs(state)
            own = score_gradients(layer.method, layer.tensor, scores, gradients[part], signs)
            layer.optimizer.move(scores, state, own, constants)
        layer.choose()

    def draw(
        self,
        keys: UInt64[np.ndarray, "T 2"],
        bound: float,
        sources: Int[Tensor, "T I"] | None,
        out: Float[Tensor, "T O I"],
    ) -> None:
        """Draw first scores, uniform in (-bound, bound), from the streams with the given keys.

        Args:
            keys: the key of each task's stream; see streams.key.
            bound: half the width of the interval.
            sources: (T, I) for each task and each input of the layer, the index of the input's
                column in `out`. None if the inputs keep their order.
            out: the tensor for the scores.
        """
        for i, key in enumerate(keys):
            generator = np.random.Generator(np.random.Philox(key=key))
            draws = generator.random(tuple(out.shape[1:]), dtype=np.float32)
            scores = torch.from_numpy((2 * draws - 1) * np.float32(bound)).to(out)
            if sources is None:
                out[i].copy_(scores)
            else:
                out[i].index_copy_(1, sources[i].long(), scores)


def _grouped(values: Tensor, num_groups: int) -> Tensor:
    """View a tensor (T, rows, columns) as (G, T / G * rows, columns), one matrix per group."""
    return values.view(num_groups, -1, values.shape[2])
