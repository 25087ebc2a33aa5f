"""Measure many states on one device. The images stay on it, and the host waits once for all tasks.

Pixels and masked signs are small whole numbers, so products of 8-bit integers give the sums of the
first layer exactly, as in measure.IntegerMeasure.

Shape letters: T tasks, M images, P pixels, O outputs and I inputs of a layer.
"""

import sys
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int8, Int64, UInt8
from torch import Tensor

from supsup_core.data import ImageSet
from supsup_core.kernels.gpu.choose import packed_kernels
from supsup_core.kernels.gpu.memory import free_and_warn
from supsup_core.networks.mlp import MLP
from supsup_core.states.layout import StateLayout, TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training.measure import SHIFT
from supsup_core.training.protocol import Measured
from supsup_core.whole_products import whole_products

# Tasks are measured in parts, so that the float32 activations of a part have at most this size.
_ACTIVATION_BYTES = 1_000_000_000


class ResidentMeasure:
    """A function that measures states of an MLP on one device, with integers in the first layer.

    Args:
        network: the fixed network.
        layout: the layout of the states. IntegerMeasure.fits must return True for this layout.
        data: the images of the data set, with one channel.
        seed: the run's seed.
        device: device of all computations.
    """

    def __init__(
        self, network: MLP, layout: StateLayout, data: ImageSet, seed: int, device: torch.device
    ) -> None:
        self._layout, self._data, self._device = layout, data, device
        background = np.zeros((1, len(data.images)), dtype=np.uint8)
        pixels = np.concatenate([data.flat.T, background])
        self._pixels = torch.from_numpy((pixels ^ SHIFT).view(np.int8)).to(device)  # (P + 1, M)
        self._labels = torch.from_numpy(data.labels.astype(np.int64)).to(device)
        first, *self._later = (weight.to(device) for weight in network.weights(seed).values())
        self._constant = float(first.abs().max())
        self._signs = first.sign().to(torch.int8)
        self._widths = network.widths[1:]
        # Largest number of states at a time. It is set if the memory was too small.
        self._limit = sys.maxsize

    def __call__(self, task: Task, state: TaskState) -> Measured:
        """Measure the accuracy and the loss of one state on the images of its task."""
        (found,) = self.each([task], [state])
        return found

    def each(self, tasks: Sequence[Task], states: Sequence[TaskState]) -> list[Measured]:
        """Measure states on the images of their tasks.

        Args:
            tasks: T tasks.
            states: the state of each task.
        """
        rows = torch.from_numpy(self._layout.pack(states)).to(self._device)
        num_images = [len(task.members(self._data.labels)) for task in tasks]
        fitting = max(1, _ACTIVATION_BYTES // (4 * sum(self._widths) * max(num_images)))
        found = []
        # Tasks of one part have the same number of images.
        for _, group in groupby(range(len(tasks)), key=num_images.__getitem__):
            numbers = list(group)
            first, end = numbers[0], numbers[-1] + 1
            while first < end:
                part = slice(first, min(end, first + min(fitting, self._limit)))
                counted = self._tried(tasks[part], rows[part])
                if counted is not None:
                    found.append(counted)
                    first = part.stop
        right, loss = torch.cat(found, dim=1).cpu().tolist()
        return [
            Measured(r / num, sum_of_losses / num)
            for r, sum_of_losses, num in zip(right, loss, num_images, strict=True)
        ]

    def _tried(
        self, tasks: Sequence[Task], rows: UInt8[Tensor, "T R"]
    ) -> Float64[Tensor, "2 T"] | None:
        """Do the work of _some. Return None if the memory of the device is too small.

        After that, fewer states are measured at a time.
        """
        try:
            return self._some(tasks, rows)
        except torch.OutOfMemoryError:
            if len(tasks) == 1:
                raise
        self._limit = len(tasks) // 2
        free_and_warn(
            f"{len(tasks)} masks to measure", f"{self._limit} masks are measured at a time"
        )
        return None

    def _some(self, tasks: Sequence[Task], rows: UInt8[Tensor, "T R"]) -> Float64[Tensor, "2 T"]:
        """Compute, on the device, two rows with one number per task.

        Row 0 has the number of images that get the right label. Row 1 has the sum of the losses.
        """
        gains = self._gains(rows)
        first = self._signs * gains[0]
        mean, std = self._data.mean[0], self._data.std[0]
        slope = self._constant / (255 * std)  # see IntegerMeasure
        offset = first.sum(dim=2, dtype=torch.float32)[..., None] * (slope * (SHIFT - 255 * mean))
        x = self._first_sums(tasks, first).mul_(slope).add_(offset)
        for weight, gain in zip(self._later, gains[1:], strict=True):
            x = torch.bmm(weight * gain, x.relu_())
        labels = torch.stack([self._labels_of(task) for task in tasks])
        right = (x.argmax(dim=1) == labels).sum(dim=1)
        of_label = x.gather(1, labels[:, None, :])[:, 0]
        loss = (x.logsumexp(dim=1) - of_label).sum(dim=1, dtype=torch.float64)
        return torch.stack([right.double(), loss])

    def _gains(self, rows: UInt8[Tensor, "T R"]) -> list[Int8[Tensor, "T ..."]]:
        """Unpack rows into the gains of each masked tensor."""
        shape = len(rows), self._layout.row_bits
        bits = torch.empty(shape, dtype=torch.bfloat16, device=rows.device)
        packed_kernels(self._device).unpack(rows, bits)
        return [gain.to(torch.int8) for gain in self._layout.unflatten(bits).values()]

    def _first_sums(self, tasks: Sequence[Task], first: Tensor) -> Float32[Tensor, "T O M"]:
        """Compute the sums of the first layer: masked signs (T, O, I) times shifted pixels."""
        if all(task.is_permutation and task.change is None for task in tasks):
            # Permuting the columns of the layer takes less time than permuting all images. All
            # tasks then need only one matrix product.
            sources = np.stack([task.source for task in tasks if task.source is not None])
            index = torch.from_numpy(np.argsort(sources, axis=1)).to(self._device)
            shown = first.gather(2, index[:, None, :].expand(first.shape))
            sums = whole_products(shown.flatten(0, 1), self._pixels[:-1])
            return sums.view(*first.shape[:2], -1)
        pairs = zip(tasks, first, strict=True)
        return torch.stack([whole_products(own, self._shown(task)) for task, own in pairs])

    def _labels_of(self, task: Task) -> Int64[Tensor, " M"]:
        if task.classes is None:
            return self._labels
        own = task.labels(self._data.labels[task.members(self._data.labels)])
        return torch.from_numpy(own).to(self._device)

    def _members(self, task: Task) -> Tensor:
        return torch.from_numpy(task.members(self._data.labels)).to(self._device)

    def _shown(self, task: Task) -> Int8[Tensor, "P M"]:
        """Return the shifted pixels of a task's images."""
        if task.change is not None:
            shown = np.ascontiguousarray(task.images(self._data.flat).T) ^ SHIFT
            return torch.from_numpy(shown.view(np.int8)).to(self._device)
        if task.classes is not None:
            return self._pixels[:-1].index_select(1, self._members(task))
        if task.source is None:
            return self._pixels[:-1]
        source = torch.from_numpy(task.source.astype(np.int64)).to(self._device)
        return self._pixels.index_select(0, source)
