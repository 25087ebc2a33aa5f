"""Change training images at random, so that a network sees an image in many positions.

Shape letters: N images, H rows, W columns.
"""

import numpy as np
from jaxtyping import UInt8

from supsup_core.names import NO_CHANGE
from supsup_core.streams import Role, stream

PADDING = 4  # pixels that are added on each side before an image is cut out


def augmented(
    images: UInt8[np.ndarray, "N ..."], kind: str, seed: int, task_id: int, step: int
) -> UInt8[np.ndarray, "N ..."]:
    """Change the images of one step of one task.

    The changes depend on the seed, the task and the step only, so they are the same in every
    process and for every block.

    Args:
        images: pixels from 0 to 255. The last two axes are H and W.
        kind: "none": the images stay unchanged. "crop": black pixels are added on each side, and an
            image of the old size is cut out at a random position. "crop_flip": also, an image
            is mirrored left to right with the probability 1/2.
        seed: the run's seed.
        task_id: number of the task.
        step: number of the step, from 0.

    Raises:
        ValueError: the images have no rows and columns.
    """
    if kind == NO_CHANGE:
        return images
    if images.ndim < 3:
        raise ValueError(
            f"augment must be {NO_CHANGE} for inputs without rows and columns, got {kind}: try "
            f"{NO_CHANGE}"
        )
    generator = stream(seed, Role.AUGMENTATION, task_id, step)
    tops, lefts = generator.integers(0, 2 * PADDING + 1, (2, len(images)))
    sides = [(0, 0)] * (images.ndim - 2) + [(PADDING, PADDING)] * 2
    padded = np.pad(images, sides)
    height, width = images.shape[-2:]
    rows = (tops[:, None] + np.arange(height))[:, :, None]  # (N, H, 1)
    columns = lefts[:, None] + np.arange(width)  # (N, W)
    if kind == "crop_flip":
        mirrored = generator.integers(0, 2, len(images), dtype=bool)
        columns[mirrored] = columns[mirrored, ::-1]
    # Indices around a slice move to the front: (N, H, W, channels).
    numbers = np.arange(len(images))[:, None, None]
    cut = padded.reshape(len(images), -1, *padded.shape[-2:])[numbers, :, rows, columns[:, None, :]]
    found: np.ndarray = np.ascontiguousarray(np.moveaxis(cut, -1, 1)).reshape(images.shape)
    return found
