"""Images turned by another angle for each task, and permuted beside that.

A rotation by nearest neighbour (as the authors rotate) is a choice of pixels.
Shape letter: P pixels.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt16

from supsup_core.tasks.permuted import permutation
from supsup_core.tasks.protocol import Setting, Task


def rotation_source(side: int, angle: float) -> UInt16[np.ndarray, " P"]:
    """Choose the pixel that each place of a rotated image shows.

    Args:
        side: pixels of a side; P = side * side.
        angle: degrees, counter-clockwise about the image's centre.

    Returns:
        For each place the nearest source pixel, or P where that lies outside.

    Raises:
        ValueError: an image too large for pixels to be numbered in 16 bits.
    """
    if side * side > np.iinfo(np.uint16).max:
        raise ValueError(f"images must have at most 65535 pixels, got {side} by {side}")
    centre = (side - 1) / 2
    rows, columns = np.mgrid[0:side, 0:side] - centre
    sine, cosine = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
    # The inverse rotation: where did the content of this place come from? Rows grow downwards.
    # Rounded first, so that multiples of 90 degrees do not depend on the last bit of a sine.
    source_columns = np.rint(np.round(cosine * columns - sine * rows + centre, 9)).astype(int)
    source_rows = np.rint(np.round(sine * columns + cosine * rows + centre, 9)).astype(int)
    inside = (
        (source_rows >= 0) & (source_rows < side) & (source_columns >= 0) & (source_columns < side)
    )
    return np.where(inside, source_rows * side + source_columns, side * side).ravel().astype("u2")


def angle_between(num_tasks: int) -> float:
    """Degrees between neighbours of the rotated families: even over the full circle."""
    return 360.0 / num_tasks


@dataclass(frozen=True)
class Rotated:
    """Rotated MNIST and its like.

    Attributes:
        is_permuted: whether each task's pixels also come in an order of its own.
    """

    is_permuted: bool = False

    def make(self, task_id: int, setting: Setting) -> Task:
        """Make one task."""
        angle = task_id * angle_between(setting.num_tasks)
        source = rotation_source(setting.side, angle)
        if self.is_permuted:
            source = source[permutation(task_id, setting)]
        return Task(task_id, source=source, angle=angle)

    def max_tasks(self, num_classes: int) -> int | None:
        """There is no end; angles get closer."""
        return None


def permuted_rotated() -> Rotated:
    """Rotated images whose pixels also come in an order of each task's own."""
    return Rotated(is_permuted=True)
