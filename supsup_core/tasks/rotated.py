"""Tasks that rotate the images, each by its own angle, and that may also permute the pixels.

As the authors do, images are rotated by nearest neighbour: each pixel of the rotated image is one
pixel of the original image, or background.
Shape letter: P pixels.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import UInt16

from supsup_core.knobs import Knob
from supsup_core.tasks.permuted import permutation
from supsup_core.tasks.protocol import Setting, Task


def rotation_source(side: int, angle: float) -> UInt16[np.ndarray, " P"]:
    """Compute, for each pixel of a rotated image, from which original pixel its value comes.

    Args:
        side: number of rows of an image, and also of columns. P = side * side pixels.
        angle: angle in degrees, counter-clockwise about the centre of the image.

    Returns:
        (P,) indices of pixels of the original image. The index P means that the pixel lies outside
        the original image.

    Raises:
        ValueError: the image has too many pixels for indices of 16 bits.
    """
    if side * side > np.iinfo(np.uint16).max:
        raise ValueError(f"images must have at most 65535 pixels, got {side} by {side}")
    centre = (side - 1) / 2
    rows, columns = np.mgrid[0:side, 0:side] - centre
    sine, cosine = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
    # The inverse rotation maps a pixel of the rotated image to its original position. Row 0 is at
    # the top. Positions are first rounded to 9 decimals. Otherwise, the rounding error of a sine
    # could change a rotation by a multiple of 90 degrees.
    source_columns = np.rint(np.round(cosine * columns - sine * rows + centre, 9)).astype(int)
    source_rows = np.rint(np.round(sine * columns + cosine * rows + centre, 9)).astype(int)
    inside = (
        (source_rows >= 0) & (source_rows < side) & (source_columns >= 0) & (source_columns < side)
    )
    return np.where(inside, source_rows * side + source_columns, side * side).ravel().astype("u2")


def angle_between(num_tasks: int) -> float:
    """Return the angle between successive rotated tasks, in degrees: 360 / number of tasks."""
    return 360.0 / num_tasks


@dataclass(frozen=True)
class Rotated:
    """The family of rotated images: task t of T tasks rotates images by t * 360 / T degrees."""

    is_permuted: Annotated[
        bool, Knob("Whether each task also permutes the pixels, with its own permutation.")
    ] = False

    def make(self, task_id: int, setting: Setting) -> Task:
        """Make a task that rotates the images, and permutes the pixels if `is_permuted` is true.

        Raises:
            ValueError: the images are not square, or have too many pixels.
        """
        angle = task_id * angle_between(setting.num_tasks)
        source = rotation_source(setting.side, angle)
        if self.is_permuted:
            source = source[permutation(task_id, setting)]
        return Task(task_id, source=source, angle=angle)

    def max_tasks(self, num_classes: int) -> int | None:
        """Return None: the number of tasks has no limit. With more tasks, the angles are closer."""
        return None


def permuted_rotated() -> Rotated:
    """Make the family whose tasks rotate the images and also permute the pixels."""
    return Rotated(is_permuted=True)
