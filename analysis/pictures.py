"""Show the masks and the weights of a run's first masked tensor as small images.

Shape letters: H outputs of the tensor, I inputs.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from analysis import stored

MOST_UNITS = 6  # units of a task whose weights are shown
_MATRIX = (64, 160)  # largest number of rows and columns of a mask that is shown as a matrix
_WIDTH = 112  # pixels of a picture; browsers then enlarge no pixel unevenly


@dataclass(frozen=True)
class FirstLayer:
    """The first masked tensor of one task.

    Attributes:
        task_id: number of the task.
        kept: (H, I) the bits of the first plane, which say which weights the mask keeps.
        weights: (H, I) the fixed weights.
        side: length of a side if the inputs are the pixels of square images of one channel, else
            None. The inputs are then in the order of the original image's pixels.
    """

    task_id: int
    kept: NDArray[np.bool_]
    weights: NDArray[np.float32]
    side: int | None


def first_layers(run_dir: Path, task_ids: Sequence[int]) -> list[FirstLayer]:
    """Read the first layer of some tasks.

    Args:
        run_dir: the run directory.
        task_ids: numbers of committed tasks.

    Returns:
        The first layer of each task. Empty if the states have no planes, if the masks are over
        units, or if tasks train the weights.

    Raises:
        ValueError: the store cannot be read.
    """
    with stored.readable(run_dir):
        group = stored.open_store(run_dir)
        planes, tensors = group.attrs["planes"], group.attrs["tensors"]
        if not planes or "trained_weights" in group.attrs:
            return []
        plane = planes[0]
        tensor = next(one for one in tensors if one["name"] == plane["tensor"])
        shape = tensor["shape"]
        if tensor.get("over") == "units" or len(shape) < 2:
            return []
        weights = np.asarray(group["weights"][tensor.get("source", tensor["name"])][:], np.float32)
        weights = weights.reshape(shape[0], -1)
        one_channel = len(group.attrs.get("normalisation", {}).get("mean", [])) == 1
        side = round(weights.shape[1] ** 0.5) if len(shape) == 2 and one_channel else 0
        is_image = side > 0 and side**2 == weights.shape[1]
        found = []
        for task in task_ids:
            packed = group["masks"][task][int(plane["byte_offset"]) :]
            bits = np.unpackbits(packed, count=int(plane["num_bits"]), bitorder="little")
            kept, values = bits.reshape(weights.shape).astype(bool), weights
            if is_image and "permutations" in group["inputs"]:
                original = np.argsort(group["inputs"]["permutations"][task])
                kept, values = kept[:, original], weights[:, original]
            found.append(FirstLayer(int(task), kept, values, side if is_image else None))
        return found


def kept_by_pixel(layer: FirstLayer) -> NDArray[np.float64]:
    """Return the fraction of units that keep their weight to each pixel, as an image."""
    assert layer.side is not None
    share: NDArray[np.float64] = layer.kept.mean(axis=0).reshape(layer.side, layer.side)
    return share


def weights_of_unit(layer: FirstLayer, unit: int) -> NDArray[np.float64]:
    """Return the weights of a unit as an image, with 0 for the weights that the mask drops."""
    assert layer.side is not None
    values = np.where(layer.kept[unit], layer.weights[unit], 0)
    return values.reshape(layer.side, layer.side).astype(float)


def matrix(layer: FirstLayer) -> NDArray[np.float64]:
    """Return the corner of a mask, with at most 64 units and 160 inputs, as an image of 0 and 1."""
    rows, columns = _MATRIX
    return layer.kept[:rows, :columns].astype(float)


def as_url(image: NDArray[np.float64], colors: str, low: float, high: float) -> str:
    """Convert an image to a PNG file in a `data:` URL.

    Args:
        image: (rows, columns) values.
        colors: name of a colour map of matplotlib.
        low: value of the map's first colour.
        high: value of the map's last colour.
    """
    scaled = np.clip((image - low) / max(high - low, 1e-12), 0, 1)
    pixels = (colormaps[colors](scaled)[..., :3] * 255).round().astype(np.uint8)
    repeats = max(1, _WIDTH // pixels.shape[1])
    pixels = pixels.repeat(repeats, axis=0).repeat(repeats, axis=1)
    file = io.BytesIO()
    Image.fromarray(pixels).quantize(64).save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
