"""Tasks that rotate the images, each by its own angle, and that may also permute the pixels.

The authors rotate by nearest neighbour: each pixel of the rotated image is one pixel of the
original image, or background. Such a rotation is a choice of pixels, as a permutation is. But
neighbouring angles may choose the same pixels, so only some hundred rotations of 28 by 28 pixels
are different. With bilinear interpolation, thousands of rotations are different.

Shape letters: N images, P pixels.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from jaxtyping import Float64, Int64, UInt, UInt8
from scipy.sparse import csr_array

from supsup_core.knobs import Knob, check_knobs
from supsup_core.tasks.permuted import permutation
from supsup_core.tasks.protocol import Setting, Task, source_type

_PARTS = 256  # bilinear interpolation rounds positions to 1/256 of a pixel


def original_positions(
    side: int, angle: float
) -> tuple[Float64[np.ndarray, "side side"], Float64[np.ndarray, "side side"]]:
    """Compute, for each pixel of a rotated image, its position in the original image.

    Args:
        side: number of rows, and of columns, of an image.
        angle: angle in degrees, counter-clockwise about the centre of the image.

    Returns:
        Two arrays (side, side): the rows and the columns in the original image, in pixels. A
        position may lie outside the image.
    """
    centre = (side - 1) / 2
    rows, columns = np.mgrid[0:side, 0:side] - centre
    sine, cosine = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
    # The inverse rotation maps a pixel of the rotated image to its original position. Row numbers
    # grow downwards.
    return sine * columns + cosine * rows + centre, cosine * columns - sine * rows + centre


def rotation_source(side: int, angle: float) -> UInt[np.ndarray, " P"]:
    """Compute, for each pixel of a rotated image, from which original pixel its value comes.

    Args:
        side: number of rows of an image, and also of columns. P = side * side pixels.
        angle: angle in degrees, counter-clockwise about the centre of the image.

    Returns:
        (P,) indices of pixels of the original image. The index P means that the pixel lies outside
        the original image.
    """
    # Positions are first rounded to 9 decimals, so that the last bit of a sine does not change a
    # rotation by a multiple of 90 degrees.
    rows, columns = (
        np.rint(np.round(one, 9)).astype(int) for one in original_positions(side, angle)
    )
    return _indices(rows, columns).astype(source_type(side * side))


def _indices(rows: np.ndarray, columns: np.ndarray) -> Int64[np.ndarray, " P"]:
    """Convert rows and columns in a square image to indices of pixels.

    A position outside the image gets the index P, the number of pixels.
    """
    side = len(rows)
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    return np.where(inside, rows * side + columns, side * side).ravel()


@dataclass(frozen=True)
class BilinearRotation:
    """A rotation by bilinear interpolation: a change of images, see Change.

    Each pixel is a weighted mean of the four original pixels around its original position. The
    position is rounded to 1/256 of a pixel, so the weights are whole numbers that sum to 2 ** 16.
    Their products with pixels sum to less than 2 ** 24. So float32 computes the sums exactly, and
    every processor and every version of NumPy makes the same images.

    Attributes:
        side: number of rows, and of columns, of an image; P = side * side.
        angle: angle in degrees, counter-clockwise about the centre of the image.
    """

    side: int
    angle: float

    rule = (
        "rotated by bilinear interpolation: the pixel in row r and column c shows the original "
        "image at row m + s (c - m) + k (r - m) and column m + k (c - m) - s (r - m), both rounded "
        "to 1/256, with m = (number of rows - 1) / 2, and s and k the sine and cosine of "
        "inputs/angles in degrees; its value is the mean of the four pixels around this position, "
        "bilinearly weighted, with 0 outside the image; halves are rounded up"
    )

    @property
    def num_pixels(self) -> int:
        """P, the number of pixels of an image."""
        return self.side * self.side

    @cached_property
    def _weights(self) -> csr_array:
        """The weights times 2 ** 16: (P, P), one row per pixel of the rotated image."""
        (top, down), (left, right) = (
            np.divmod(np.rint(_PARTS * one).astype(int), _PARTS)
            for one in original_positions(self.side, self.angle)
        )
        corners = [
            (_indices(top, left), (_PARTS - down) * (_PARTS - right)),
            (_indices(top, left + 1), (_PARTS - down) * right),
            (_indices(top + 1, left), down * (_PARTS - right)),
            (_indices(top + 1, left + 1), down * right),
        ]
        indices = np.concatenate([one for one, _ in corners])
        weights = np.concatenate([weight.ravel() for _, weight in corners]).astype(np.float32)
        pixels = np.tile(np.arange(self.num_pixels), len(corners))
        inside = indices < self.num_pixels
        shape = (self.num_pixels, self.num_pixels)
        return csr_array((weights[inside], (pixels[inside], indices[inside])), shape=shape)

    def __call__(self, pixels: UInt8[np.ndarray, "N P"]) -> UInt8[np.ndarray, "N P"]:
        """Rotate images."""
        sums = self._weights @ np.ascontiguousarray(pixels.T, dtype=np.float32)
        rounded = ((sums + _PARTS**2 / 2) / _PARTS**2).astype(np.uint8)
        return np.ascontiguousarray(rounded.T)


def angle_between(num_tasks: int) -> float:
    """Return the angle between successive rotated tasks, in degrees: 360 / number of tasks."""
    return 360.0 / num_tasks


Interpolation = Annotated[
    str,
    Knob(
        "How the pixels of a rotated image are made. nearest takes the nearest original pixel, as "
        "the authors do. bilinear takes a mean of the four nearest pixels, so that thousands of "
        "rotations are different tasks.",
        one_of=("nearest", "bilinear"),
    ),
]


@dataclass(frozen=True)
class Rotated:
    """The family of rotated images: task t of T tasks rotates images by t * 360 / T degrees."""

    is_permuted: Annotated[
        bool, Knob("Whether each task also permutes the pixels, with its own permutation.")
    ] = False
    interpolation: Interpolation = "nearest"

    def __post_init__(self) -> None:
        check_knobs(Rotated, vars(self))

    def make(self, task_id: int, setting: Setting) -> Task:
        """Make a task that rotates the images, and permutes the pixels if `is_permuted` is true.

        Raises:
            ValueError: the images are not square.
        """
        side, angle = setting.side, task_id * angle_between(setting.num_tasks)
        order = permutation(task_id, setting, side * side) if self.is_permuted else None
        parameters = {"angles": angle}
        if self.interpolation == "bilinear":
            return Task(
                task_id,
                change=BilinearRotation(side, angle),
                source=order,
                is_permutation=self.is_permuted,
                parameters=parameters,
            )
        source = rotation_source(side, angle)
        return Task(
            task_id, source=source if order is None else source[order], parameters=parameters
        )

    def max_tasks(self, num_classes: int) -> int | None:
        """Return None: the number of tasks has no limit. With more tasks, the angles are closer."""
        return None


def permuted_rotated(interpolation: Interpolation = "nearest") -> Rotated:
    """Make the family whose tasks rotate the images and also permute the pixels."""
    return Rotated(is_permuted=True, interpolation=interpolation)
