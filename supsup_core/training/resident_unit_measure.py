"""Measure masks over units on a GPU. The images stay on it, and the host waits once for all tasks.

Shape letters: M images of the data set, P pixels, U units of the first hidden layer with a gain of
1, N images of a batch.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64, Int8, Int64
from torch import Tensor
from torch.nn import functional

from supsup_core.data import ImageSet
from supsup_core.networks.units import WholePixels, logits_of_drives
from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training.measure import MEASURED_TOGETHER, SHIFT, strided
from supsup_core.training.protocol import Measured
from supsup_core.whole_products import whole_products


class ResidentUnitMeasure:
    """A function that measures states whose masks are over units; see UnitMeasure.

    Args:
        network: the fixed network. Its first layer is computed from pixels that are whole numbers.
        data: the images of the data set, with one channel.
    """

    def __init__(self, network: WholePixels, data: ImageSet) -> None:
        self._network, self._data, self._device = network, data, network.device
        background = np.zeros((1, len(data.images)), dtype=np.uint8)
        pixels = np.concatenate([data.flat.T, background]) ^ SHIFT
        self._pixels = torch.from_numpy(pixels.view(np.int8)).to(self._device)  # (P + 1, M)

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
        found = [self._one(task, state) for task, state in zip(tasks, states, strict=True)]
        counts = [len(task.members(self._data.labels)) for task in tasks]
        told = torch.stack(found).cpu().tolist() if found else []
        return [
            Measured(right / num, loss / num)
            for (right, loss), num in zip(told, counts, strict=True)
        ]

    def _one(self, task: Task, state: TaskState) -> Float64[Tensor, " 2"]:
        """Compute, on the device, the number of right labels, and the sum of the losses."""
        # Only units with a gain of 1 need drives.
        speaking = self._uploaded(np.flatnonzero(state.planes[0]))
        gains = [torch.from_numpy(np.asarray(m)).to(self._device).float() for m in state.planes]
        gains[0] = gains[0].index_select(0, speaking)
        first, *rest = self._network.later
        later = [first.index_select(1, speaking), *rest]
        signs = self._network.signs.index_select(0, speaking)
        members = task.members(self._data.labels)
        pixels = self._pixels[:-1]
        if task.is_permutation and task.source is not None and task.change is None:
            # To permute the columns of the signs takes less time than to permute all images.
            signs = signs.index_select(1, self._uploaded(np.argsort(task.source)))
        elif task.source is not None and task.change is None:
            pixels = self._pixels.index_select(0, self._uploaded(task.source))
        total = torch.zeros(2, dtype=torch.float64, device=self._device)
        for some in strided(members, MEASURED_TOGETHER):
            if task.change is None:
                shown = pixels.index_select(1, self._uploaded(some))
            else:
                shown = self._changed(task, some)
            labels = self._uploaded(task.labels(self._data.labels[some]))
            drives = self._network.drives_of(whole_products(signs, shown))
            logits = logits_of_drives(later, gains, drives)
            right = (logits.argmax(dim=1) == labels).sum()
            loss = functional.cross_entropy(logits, labels, reduction="sum")
            total += torch.stack([right.double(), loss.double()])
        return total

    def _changed(self, task: Task, index: np.ndarray) -> Int8[Tensor, "P N"]:
        shown = np.ascontiguousarray(task.images(self._data.flat[index]).T) ^ SHIFT
        return torch.from_numpy(shown.view(np.int8)).to(self._device)

    def _uploaded(self, numbers: np.ndarray) -> Int64[Tensor, " _"]:
        return torch.from_numpy(np.asarray(numbers, dtype=np.int64)).to(self._device)
