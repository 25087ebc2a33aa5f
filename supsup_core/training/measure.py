"""Measure the accuracy and the loss of a task's state on a set of images.

Pixels are whole numbers from 0 to 255. If the first layer's signs times gains are small whole
numbers, the sums of the first layer are computed without rounding. Only the normalisation and the
later layers then round, so measured accuracies depend less on the machine.

Shape letters: N images, P pixels, O outputs and I inputs of a layer, M images of a task.
"""

from collections.abc import Callable, Iterator
from copy import copy
from math import prod

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from supsup_core.data import ImageSet, normalise
from supsup_core.kernels.scoring import score_fused, score_plain
from supsup_core.networks.mlp import MLP
from supsup_core.networks.protocol import Floats, Gains, Network, Weights
from supsup_core.states.bits import BitStates
from supsup_core.states.choose import stored_states
from supsup_core.states.layout import StateLayout, TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.tasks.shown import ShownImages
from supsup_core.training.protocol import Measured
from supsup_core.whole_products import LARGEST_SUM, whole_products

Measure = Callable[[Task, TaskState], Measured]

# Largest number of images in one batch, if the network normalises over the batch.
MEASURED_TOGETHER = 250
# Largest number of images in one batch, if the network does not normalise over the batch. The
# activations of this many images fit into the cache of one core.
_IMAGES_AT_ONCE = 1000
SHIFT = 128  # subtracting this number moves pixels from 0..255 to -128..127, the range of int8


def strided(members: Integer[np.ndarray, " M"], at_most: int) -> Iterator[np.ndarray]:
    """Split image indices into parts of at most `at_most` images.

    The sizes of the parts differ by 1 at most. With n parts, part i has the elements i, i + n,
    i + 2n, ... of `members`. So each part has images of all classes, even if the images are sorted
    by class.

    Args:
        members: (M,) image indices.
        at_most: largest number of images in one part.
    """
    num_parts = -(-len(members) // at_most)
    return (members[part::num_parts] for part in range(num_parts))


class PlainMeasure:
    """A function that measures states of any network in float32, on any device.

    If the network normalises, it uses the running statistics that a state stores. If a state stores
    none, the network uses the statistics of each batch.

    Args:
        network: the fixed network.
        layout: the layout of the states.
        data: the images of the data set, usually the test images.
        seed: the run's seed.
        device: device of all computations.
    """

    def __init__(
        self, network: Network, layout: StateLayout, data: ImageSet, seed: int, device: torch.device
    ) -> None:
        self._network, self._layout = network, layout
        self._data, self._device = data, device
        self._shown = ShownImages(data, device)
        self._weights = {n: weight.to(device) for n, weight in network.weights(seed).items()}

    def with_weights(self, weights: Weights) -> "PlainMeasure":
        """Return a copy that measures with other weights of the given names, on its device."""
        other = copy(self)
        other._weights = self._weights | dict(weights)
        return other

    def __call__(self, task: Task, state: TaskState) -> Measured:
        """Measure the accuracy and the loss of one state on the images of its task."""
        states = stored_states(self._layout, self._layout.pack([state]), self._device)
        return self._measured(task, states.gains(0), states.floats(0) or None)

    def without_mask(self, task: Task) -> Measured:
        """Measure the network with gains of 1 on the images of a task.

        If the network normalises, it uses the statistics of each batch, because no state stores the
        running statistics of the network without a mask.
        """
        ones = {t.name: torch.ones(t.shape, device=self._device) for t in self._network.tensors}
        return self._measured(task, ones, None)

    def _measured(self, task: Task, gains: Gains, floats: Floats | None) -> Measured:
        shares_statistics = self._network.normalises and floats is None
        at_most = MEASURED_TOGETHER if shares_statistics else _IMAGES_AT_ONCE
        right, loss, num_images = 0, 0.0, 0
        for some in strided(task.members(self._data.labels), at_most):
            images = normalise(self._shown.of(task, some), self._data.mean, self._data.std)
            labels = torch.from_numpy(task.labels(self._data.labels[some])).to(self._device)
            with torch.no_grad():
                logits = self._network.logits(self._weights, gains, images, floats)
            num_right, its_loss = score_plain(logits.t(), labels)
            right, loss, num_images = right + num_right, loss + its_loss, num_images + len(some)
        return Measured(right / num_images, loss / num_images)


class IntegerMeasure:
    """A function that measures states of an MLP on the CPU, with exact sums in the first layer.

    Args:
        network: the fixed network.
        layout: the layout of the states. `fits` must return True for this layout.
        data: the images of the data set, with one channel.
        seed: the run's seed.
    """

    def __init__(self, network: MLP, layout: StateLayout, data: ImageSet, seed: int) -> None:
        self._layout, self._data = layout, data
        background = np.zeros((1, len(data.images)), dtype=np.uint8)
        pixels = np.concatenate([data.flat.T, background])
        shifted = torch.from_numpy((pixels ^ SHIFT).view(np.int8))  # p - 128, (P + 1, N)
        labels = torch.from_numpy(data.labels.astype(np.int64))
        self._parts = [
            (some.contiguous(), theirs)
            for some, theirs in zip(
                shifted.split(_IMAGES_AT_ONCE, dim=1), labels.split(_IMAGES_AT_ONCE), strict=True
            )
        ]
        first, *self._later = network.weights(seed).values()
        self._constant = float(first.abs().max())
        self._signs = first.sign().to(torch.int8)

    @staticmethod
    def fits(network: MLP, layout: StateLayout, data: ImageSet) -> bool:
        """Return whether this class can measure states of a network and a layout on a data set.

        The network's weights must be signed constants. All gains must be whole numbers that fit
        into 8 bits, the sums of the first layer must be exact in float32, a state must have no
        floats, and the images must have one channel.
        """
        coefficients = [plane.spec.coefficient for plane in layout.planes]
        largest = sum(map(abs, coefficients))
        whole = all(c == int(c) for c in coefficients) and largest < 128
        exact = prod(data.shape) * largest * SHIFT <= LARGEST_SUM
        fits_data = exact and data.channels == 1
        return network.has_constants and whole and fits_data and not layout.floats

    def __call__(self, task: Task, state: TaskState) -> Measured:
        """Measure the accuracy and the loss of one state on the images of its task."""
        gains = list(BitStates(self._layout, self._layout.pack([state]), _CPU).gains(0).values())
        first = self._signs * gains[0].to(torch.int8)
        later = [weight * gain for weight, gain in zip(self._later, gains[1:], strict=True)]
        mean, std = self._data.mean[0], self._data.std[0]
        # An output of the first layer is the sum over pixels of c m (p / 255 - mean) / std. Here, c
        # is the magnitude of the weights, m the sign of a weight times its gain, p the pixel, and
        # q = p - 128 the shifted pixel.
        slope = self._constant / (255 * std)
        sums = first.sum(dim=1, dtype=torch.float32)[:, None]
        offset = sums * (slope * (SHIFT - 255 * mean))
        num_images, right, loss = 0, 0, 0.0
        for part in self._parts:
            pixels, labels = _as_task(task, *part)
            x = whole_products(first, pixels).mul_(slope).add_(offset)
            for weight in later:
                x = weight @ x.relu_()
            part_right, part_loss = score_fused(x, labels)
            num_images += len(labels)
            right, loss = right + part_right, loss + part_loss
        return Measured(right / num_images, loss / num_images)


_CPU = torch.device("cpu")


def _as_task(task: Task, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels (P, M) and the labels (M,) of the M images that belong to a task.

    Args:
        task: the task.
        pixels: (P + 1, N) pixels of N images of the data set. The last row is background.
        labels: (N,) labels of these images, with the numbers of the data set.
    """
    if task.classes is not None:
        members = torch.from_numpy(task.members(labels.numpy()))
        own = task.labels(labels[members].numpy())
        pixels, labels = pixels.index_select(1, members), torch.from_numpy(own)
    if task.change is not None:
        flat = np.ascontiguousarray(pixels[:-1].numpy().T).view(np.uint8) ^ SHIFT
        changed = np.ascontiguousarray(task.images(flat).T) ^ SHIFT
        return torch.from_numpy(changed.view(np.int8)), labels
    if task.source is None:
        return pixels[:-1], labels
    return pixels.index_select(0, torch.from_numpy(task.source.astype(np.int64))), labels


def measure_for(
    network: Network, layout: StateLayout, data: ImageSet, seed: int, device: torch.device
) -> Measure:
    """Make the function that measures the accuracy and the loss of states.

    If the network is an MLP, the device is a CPU, and IntegerMeasure.fits is true for the layout
    and the data, the function is an IntegerMeasure, because it rounds less. Otherwise it is a
    PlainMeasure. The arguments are those of PlainMeasure.
    """
    if type(network) is MLP and device.type == "cpu" and IntegerMeasure.fits(network, layout, data):
        return IntegerMeasure(network, layout, data, seed)
    return PlainMeasure(network, layout, data, seed, device)
