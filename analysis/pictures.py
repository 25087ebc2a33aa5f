"""Show the masks and the weights of a run's first masked tensor as small images.

Shape letters: H outputs of the tensor, I inputs.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        gains: (H, I) the gains of the weights, without a scale. A gain of 0 drops the weight.
        weights: (H, I) the fixed weights.
        side: length of a side if the inputs are the pixels of square images of one channel, else
            None. If a task permutes pixels, the inputs are in the order of the original image.
    """

    task_id: int
    gains: NDArray[np.float32]
    weights: NDArray[np.float32]
    side: int | None


def first_layers(
    run_dir: str | Path, task_ids: Sequence[int], *, is_stream: bool = False
) -> Iterator[FirstLayer]:
    """Read the first layer of some tasks, one after another.

    Args:
        run_dir: the run directory.
        task_ids: numbers of committed tasks.
        is_stream: whether the masks belong to a learner on a stream. Such a mask may belong to
            another task than the task with its number. So its inputs cannot be put in order, and
            `side` is None.

    Yields:
        The first layer of each task. Nothing if the states have no planes, if the masks are over
        units, or if tasks train the weights.

    Raises:
        ValueError: the store cannot be read.
    """
    with stored.readable(run_dir):
        store = stored.open_store(run_dir)
        tensor = _first_tensor(dict(store.attrs))
        if tensor is None:
            return
        shape = tensor["shape"]
        weights = np.asarray(store["weights"][tensor["source"]][:], np.float32)
        weights = weights.reshape(shape[0], -1)
        orders = store["inputs"].get("permutations")
        one_channel = len(store.attrs.get("normalisation", {}).get("mean", [])) == 1
        side = round(weights.shape[1] ** 0.5)
        is_image = one_channel and len(shape) == 2 and side**2 == weights.shape[1]
        is_image = is_image and not (is_stream and orders is not None)
        planes = [one for one in store.attrs["planes"] if one["tensor"] == tensor["name"]]
        for task in task_ids:
            gains, own = _gains(store["masks"][task], planes, weights.shape), weights
            if is_image and orders is not None:
                original = np.argsort(orders[task])
                gains, own = gains[:, original], weights[:, original]
            yield FirstLayer(task, gains, own, side if is_image else None)


def _first_tensor(attributes: dict[str, Any]) -> dict[str, Any] | None:
    """Return the tensor of the first plane; None if its masks cannot be shown."""
    if not attributes["planes"] or "trained_weights" in attributes:
        return None
    name = attributes["planes"][0]["tensor"]
    tensor: dict[str, Any] = next(one for one in attributes["tensors"] if one["name"] == name)
    return None if tensor["over"] == "units" or len(tensor["shape"]) < 2 else tensor


def _gains(
    row: NDArray[np.uint8], planes: Sequence[dict[str, Any]], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Add the planes of a tensor, each multiplied by its coefficient."""
    gains = np.zeros(shape, np.float32)
    for plane in planes:
        packed = row[int(plane["byte_offset"]) :]
        bits = np.unpackbits(packed, count=int(plane["num_bits"]), bitorder="little")
        gains += plane["coefficient"] * bits.reshape(shape)
    return gains


def kept_by_pixel(layer: FirstLayer) -> NDArray[np.float64]:
    """Return the fraction of units that keep their weight to each pixel, as an image."""
    assert layer.side is not None
    share: NDArray[np.float64] = (layer.gains != 0).mean(axis=0).reshape(layer.side, layer.side)
    return share


def weights_of_unit(layer: FirstLayer, unit: int) -> NDArray[np.float64]:
    """Return the effective weights of a unit as an image: 0 for weights that the mask drops."""
    assert layer.side is not None
    values = (layer.gains[unit] * layer.weights[unit]).astype(float)
    image: NDArray[np.float64] = values.reshape(layer.side, layer.side)
    return image


def matrix(layer: FirstLayer) -> NDArray[np.float64]:
    """Return the corner of a mask, with at most 64 units and 160 inputs, as an image of 0 and 1."""
    rows, columns = _MATRIX
    kept: NDArray[np.float64] = (layer.gains[:rows, :columns] != 0).astype(float)
    return kept


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
    return _url(Image.fromarray(_enlarged(pixels)).quantize(64))


def pixels_url(pixels: NDArray[np.uint8]) -> str:
    """Convert an image to a PNG file in a `data:` URL, with its own colours.

    Args:
        pixels: (rows, columns) grey values, or (rows, columns, 3) colours.
    """
    return _url(Image.fromarray(_enlarged(pixels)))


def _enlarged(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    repeats = max(1, _WIDTH // pixels.shape[1])
    return pixels.repeat(repeats, axis=0).repeat(repeats, axis=1)


def _url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
