"""Images of a data set that stay on a device, and that tasks change there.

Shape letters: M images of the data set, N chosen images, P values of an image.
"""

import numpy as np
import torch
from jaxtyping import Int64, Integer, UInt8
from torch import Tensor
from torch.nn import functional

from supsup_core.data import ImageSet
from supsup_core.kernels.gpu.memory import free_bytes
from supsup_core.tasks.protocol import Task

# The images may take this fraction of the free memory of a GPU.
_SHARE = 0.1


class ShownImages:
    """The images of a data set, as tasks show them, on a device.

    On a GPU, images that are in memory are copied to the GPU once, if they take a small part of its
    memory. The GPU then chooses the images and moves their pixels. Otherwise, and for tasks that
    compute new pixels, the host makes the images, and each call copies them.

    Args:
        data: the images of the data set.
        device: the device of the returned images.

    Attributes:
        pixels: (M, P) the images of the data set on the GPU; None if the host makes all images.
    """

    def __init__(self, data: ImageSet, device: torch.device) -> None:
        self._data, self._device = data, device
        self.pixels: UInt8[Tensor, "M P"] | None = None
        # Other actors of the same GPU have copies too.
        if (
            device.type != "cpu"
            and data.in_memory
            and data.flat.nbytes <= _SHARE * free_bytes(device)
        ):
            self.pixels = torch.from_numpy(data.flat).to(device)

    def of(self, task: Task, index: Integer[np.ndarray, " N"]) -> UInt8[Tensor, "N ..."]:
        """Return some images as a task shows them.

        Args:
            task: the task.
            index: the indices of N images of the data set.

        Raises:
            ValueError: see Task.images.
        """
        if self.pixels is None or task.change is not None:
            return torch.from_numpy(task.images(self._data.images[index])).to(self._device)
        shown = self.pixels.index_select(0, self._uploaded(index))
        if task.source is not None:
            # The additional last pixel is black. Channels may have the same source; see Task.
            padded = functional.pad(shown.view(-1, len(task.source)), (0, 1))
            shown = padded.index_select(1, self._uploaded(task.source))
        return shown.view(-1, *self._data.shape)

    def _uploaded(self, numbers: np.ndarray) -> Int64[Tensor, " _"]:
        return torch.from_numpy(numbers.astype(np.int64)).to(self._device)
