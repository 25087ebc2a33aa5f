"""Accuracy and loss of a task's mask on a set of images.

Pixels are whole numbers from 0 to 255, so a first layer of 0, +1 and -1 has exact sums
in integers, which processors multiply far faster than float32; only the normalisation
and the later layers need real numbers. Shape letters: N images, P pixels, O and I as in
a layer.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from supsup_core.data import ImageSet, normalise
from supsup_core.kernels.scoring import score_fused, score_plain
from supsup_core.networks.mlp import forward
from supsup_core.networks.units import has_integer_products
from supsup_core.tasks import Task

# Images whose activations stay in a core's own cache.
_IMAGES_AT_ONCE = 1000
_SHIFT = 128  # from 0..255 to the range of int8


class Measure:
    """Measures masks over fixed weights in float32, on any device.

    Args:
        weights: of the network, (O, I) for each layer, +-c.
        data: the images.
        device: where.
    """

    def __init__(self, weights: Sequence[Tensor], data: ImageSet, device: torch.device) -> None:
        self._weights = [weight.to(device) for weight in weights]
        self._data, self._device = data, device

    def __call__(self, task: Task, mask: Sequence[Bool[np.ndarray, "_ _"]]) -> tuple[float, float]:
        """Accuracy and mean cross-entropy (nats) of one mask on the task's images."""
        members = task.members(self._data.labels)
        pixels = torch.from_numpy(task.images(self._data.images[members])).to(self._device)
        labels = torch.from_numpy(self._data.labels[members]).to(self._device).long()
        weights = [
            weight * torch.from_numpy(m).to(self._device)
            for weight, m in zip(self._weights, mask, strict=True)
        ]
        logits = forward(weights, normalise(pixels, self._data.mean, self._data.std))
        right, loss = score_plain(logits.t(), labels)
        return right / len(members), loss / len(members)


class IntegerMeasure(Measure):
    """The same on the CPU: the first layer in exact integers, a few images at a time."""

    def __init__(self, weights: Sequence[Tensor], data: ImageSet, device: torch.device) -> None:
        super().__init__(weights, data, device)
        background = np.zeros((1, len(data.images)), dtype=np.uint8)
        pixels = np.concatenate([data.images.T, background])
        shifted = torch.from_numpy((pixels ^ _SHIFT).view(np.int8))  # p - 128, (P + 1, N)
        labels = torch.from_numpy(data.labels).long()
        self._parts = [
            (some.contiguous(), theirs)
            for some, theirs in zip(
                shifted.split(_IMAGES_AT_ONCE, dim=1), labels.split(_IMAGES_AT_ONCE), strict=True
            )
        ]
        self._constant = float(self._weights[0].abs().max())
        self._signs = self._weights[0].sign().to(torch.int8)

    def __call__(self, task: Task, mask: Sequence[Bool[np.ndarray, "_ _"]]) -> tuple[float, float]:
        """Accuracy and mean cross-entropy (nats) of one mask on the task's images."""
        first = self._signs * torch.from_numpy(mask[0])
        later = [w * torch.from_numpy(m) for w, m in zip(self._weights[1:], mask[1:], strict=True)]
        # sum of c m (p / 255 - mean) / std, with p = q + 128
        slope = self._constant / (255 * self._data.std)
        sums = first.sum(dim=1, dtype=torch.float32)[:, None]
        offset = sums * (slope * (_SHIFT - 255 * self._data.mean))
        num_images, right, loss = 0, 0, 0.0
        for part in self._parts:
            pixels, labels = _as_task(task, *part)
            x = torch._int_mm(first, pixels).to(torch.float32).mul_(slope).add_(offset)
            for weight in later:
                x = weight @ x.relu_()
            part_right, part_loss = score_fused(x, labels)
            num_images += len(labels)
            right, loss = right + part_right, loss + part_loss
        return right / num_images, loss / num_images


def _as_task(task: Task, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Some images (P + 1, N), the last row background, as the task sees them: (P, N)."""
    if task.classes is not None:
        members = torch.from_numpy(task.members(labels.numpy()))
        pixels, labels = pixels.index_select(1, members), labels[members]
    if task.source is None:
        return pixels[:-1], labels
    return pixels.index_select(0, torch.from_numpy(task.source.astype(np.int64))), labels


def measure_form(device: torch.device) -> type[Measure]:
    """Choose: integers on a CPU with instructions for their products, else float32."""
    return IntegerMeasure if device.type == "cpu" and has_integer_products() else Measure
