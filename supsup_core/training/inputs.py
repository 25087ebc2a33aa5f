"""The inputs of a block's first layer: the images of a step, changed by each task's rule.

Shape letters: B tasks of the block, N images of a batch, P pixels of an image, O outputs and
I inputs of a layer.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from supsup_core.data import ImageSet, normalise
from supsup_core.tasks.protocol import Task
from supsup_core.training.batches import Batch, batch_labels, share_images


class BlockInputs:
    """The inputs of a block's first layer, and their labels, for each step of training.

    If all tasks are permutations and `reorders` is true, the columns of the first layer are
    permuted instead of the images. All tasks then share the images of a step. If all tasks choose
    pixels, one indexing operation makes the images of the block. Otherwise each task makes its own
    images.

    Args:
        tasks: the B tasks of the block, all of one family.
        data: the training images, with one channel and P pixels.
        dtype: dtype of the images that `at` returns.
        device: device of the images and labels.
        reorders: whether the columns of the first layer may be permuted during training; see
            PlaneMethod.reorders.

    Attributes:
        columns: (B, P) for each task and each pixel of the original image, the index of the pixel's
            column in stored order. None if the columns of the first layer are not permuted.
        device: device of the images and labels.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        data: ImageSet,
        dtype: torch.dtype,
        device: torch.device,
        *,
        reorders: bool = True,
    ) -> None:
        self._tasks, self._data, self._dtype, self.device = tasks, data, dtype, device
        self._images = torch.from_numpy(data.flat).to(device)
        self._labels = torch.from_numpy(data.labels.astype(np.int64)).to(device)
        self._shared = share_images(tasks)
        self.columns: np.ndarray | None = None
        self._sources: Tensor | None = None
        sources = [task.source for task in tasks if task.source is not None]
        chooses = len(sources) in (0, len(tasks)) and all(task.change is None for task in tasks)
        self._one_by_one = not chooses
        if sources and chooses:
            if reorders and all(task.is_permutation for task in tasks):
                self.columns = np.argsort(np.stack(sources), axis=1)
            else:
                self._sources = torch.from_numpy(np.stack(sources).astype(np.int64)).to(device)
        black = normalise(torch.zeros(1, dtype=torch.uint8), data.mean, data.std)
        self._background = black.to(device, dtype)
        self._others: BlockInputs | None = None  # the inputs of other tasks, for `of`

    def of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the inputs and the labels of a batch, as `at` does.

        The images of the batch may belong to other tasks than those of the block, because a mask
        can follow a stream into the next task. Such images are made by their own tasks, and their
        pixels are put into the order of the block's columns.
        """
        if all(map(_shows_alike, batch.tasks, self._tasks)):
            return self.at(batch.index)
        if self._others is None or self._others._tasks is not batch.tasks:
            self._others = BlockInputs(
                batch.tasks, self._data, self._dtype, self.device, reorders=False
            )
        images, labels = self._others.at(batch.index)
        if self.columns is None:
            return images, labels
        each = images.expand(len(batch.tasks), *images.shape[-2:])
        columns = torch.from_numpy(self.columns).to(images.device)
        return torch.stack([own[order] for own, order in zip(each, columns, strict=True)]), labels

    def at(self, index: Integer[np.ndarray, "B N"]) -> tuple[Tensor, Tensor]:
        """Return the inputs and the labels of one step.

        Args:
            index: (B, N) for each of the B tasks, the indices of its N images.

        Returns:
            Two tensors. The first has the normalised images of P pixels: (P, N) if all tasks share
            the images, otherwise (B, P, N). The second has the labels, (B, N).
        """
        if self._one_by_one:
            return self._made(index)
        num_tasks, num_images = index.shape
        picked = torch.tensor(index[:1] if self._shared else index, device=self._images.device)
        pixels = self._images.index_select(0, picked.flatten())
        images = normalise(pixels, self._data.mean, self._data.std).to(self._dtype)
        if not self._shared:
            own = batch_labels(self._tasks, self._data, index)
            shown = images.view(num_tasks, num_images, -1).transpose(1, 2)
            return shown, torch.from_numpy(own).to(self.device)
        labels = self._labels[picked].expand(num_tasks, -1)
        if self._sources is None:
            return images.t(), labels
        padded = torch.cat([images.t(), self._background.expand(1, num_images)])
        return padded[self._sources], labels

    def _made(self, index: Integer[np.ndarray, "B N"]) -> tuple[Tensor, Tensor]:
        """Make each task's images, and return normalised images (B, P, N) and labels (B, N)."""
        flat = self._data.flat
        shown = [task.images(flat[own]) for task, own in zip(self._tasks, index, strict=True)]
        pixels = torch.from_numpy(np.stack(shown)).to(self.device)
        images = normalise(pixels, self._data.mean, self._data.std).to(self._dtype)
        return images.transpose(1, 2), self._labels[torch.tensor(index, device=self.device)]

    def to_columns(self, values: np.ndarray) -> np.ndarray:
        """Permute the columns of first-layer values (B, O, I): from stored to training order."""
        return self._reordered(values, self.columns)

    def from_columns(self, values: np.ndarray) -> np.ndarray:
        """Permute the columns of first-layer values (B, O, I): from training to stored order."""
        back = None if self.columns is None else np.argsort(self.columns, axis=1)
        return self._reordered(values, back)

    @staticmethod
    def _reordered(values: np.ndarray, order: np.ndarray | None) -> np.ndarray:
        if order is None:
            return values
        return np.take_along_axis(values, order[:, None, :], axis=2)


def _shows_alike(one: Task, other: Task) -> bool:
    """Return whether two tasks have the same images and labels.

    Tasks with equal but separate arrays count as different. `BlockInputs.of` is then slower, but
    right.
    """
    return (
        one.source is other.source
        and one.change is other.change
        and (one.classes, one.renumbers) == (other.classes, other.renumbers)
    )
