"""Make a data set from four arrays: x_train, y_train, x_test and y_test.

Shape letters: N images, H rows and W columns of an image, C channels, P values of a vector.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt, UInt8

from harness.data.dataset import MOST_CLASSES, Dataset, in_parts, label_type, moments
from harness.errors import UserError, one_line
from supsup_core.data import ImageSet

ARRAYS = ("x_train", "y_train", "x_test", "y_test")

# Largest difference between a float and a whole number that still counts as this whole number.
# float32 stores k / 255 with an error that is far smaller.
_TOLERANCE = 0.01


def dataset_from_arrays(name: str, arrays: Mapping[str, Any]) -> Dataset:
    """Make a data set from four arrays. Mean and standard deviation are those of x_train.

    Args:
        name: the value of the key `data`, for messages.
        arrays: x_train and x_test, images (N, H, W), colour images (N, H, W, C), or vectors (N, P).
            Values are whole numbers from 0 to 255, or these numbers divided by 255. y_train and
            y_test, (N,) labels: whole numbers from 0 to the number of classes - 1. Each class needs
            a training image. Other arrays are not used.

    Raises:
        UserError: an array is missing, or its type, shape or values are not those above.
    """
    who = f"data={name}"
    if not isinstance(arrays, Mapping):
        raise UserError(
            f"{who} must return a Dataset or a mapping with {', '.join(ARRAYS)}, got "
            f"{type(arrays).__name__}: return one of these"
        )
    if missing := [one for one in ARRAYS if one not in arrays]:
        raise UserError(
            f"{who} must have the arrays {', '.join(ARRAYS)}, got {', '.join(arrays) or 'none'}: "
            f"add {', '.join(missing)}"
        )
    found = {key: _array(who, key, arrays[key]) for key in ARRAYS}
    for split in ("train", "test"):
        _check_shapes(who, split, found[f"x_{split}"], found[f"y_{split}"])
    shapes = [found[key].shape[1:] for key in ("x_train", "x_test")]
    if shapes[0] != shapes[1]:
        raise UserError(
            f"{who} must have images of the same shape, got {shapes[0]} in x_train and {shapes[1]} "
            "in x_test: make the shapes equal"
        )
    train, test = _pixels(who, {key: found[key] for key in ("x_train", "x_test")})
    labels = _labels(who, {key: found[key] for key in ("y_train", "y_test")})
    mean, std = moments(in_parts(train))
    return Dataset(
        name,
        ImageSet(train, labels[0], mean, std),
        ImageSet(test, labels[1], mean, std),
        num_classes=int(labels[0].max()) + 1,
    )


def _array(who: str, key: str, given: Any) -> np.ndarray:
    try:
        array = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{who} must have an array {key}, got {one_line(error)}") from error
    if array.dtype.kind not in "uif":
        raise UserError(f"{who} must have numbers in {key}, got {array.dtype}: convert the array")
    return array


def _check_shapes(who: str, split: str, x: np.ndarray, y: np.ndarray) -> None:
    """Refuse arrays whose shapes are not those of images or vectors and their labels."""
    if x.ndim not in (2, 3, 4) or not x.size:
        raise UserError(
            f"{who} must have x_{split} of shape (N, H, W), (N, H, W, C) or (N, P) with at least "
            f"one image, got {x.shape}: reshape the array"
        )
    if x.ndim == 4 and x.shape[3] > 4 >= x.shape[1]:
        raise UserError(
            f"{who} must have the channels of x_{split} as the last axis, got {x.shape}: try "
            f"np.moveaxis(x_{split}, 1, -1)"
        )
    if y.shape != x.shape[:1]:
        raise UserError(
            f"{who} must have y_{split} of shape {x.shape[:1]}, one label for each image, got "
            f"{y.shape}: reshape the array, or leave out images without a label"
        )


def _pixels(who: str, arrays: Mapping[str, np.ndarray]) -> list[UInt8[np.ndarray, "N ..."]]:
    """Convert x_train and x_test to uint8 (N, C, H, W) or (N, P), without changing a value."""
    for key, x in arrays.items():
        for part in in_parts(x):
            if not np.isfinite(part).all():
                raise UserError(
                    f"{who} must have finite numbers in {key}, got nan or inf: replace them"
                )
    low = min(x.min() for x in arrays.values())
    high = max(x.max() for x in arrays.values())
    if low < 0 or high > 255:
        raise UserError(
            f"{who} must have images with values in [0, 1] or [0, 255], got {low:g} to {high:g}: "
            "scale the values"
        )
    is_float = any(x.dtype.kind == "f" for x in arrays.values())
    scale = 255 if is_float and high <= 1 else 1
    return [_whole(who, key, x, scale) for key, x in arrays.items()]


def _whole(who: str, key: str, x: np.ndarray, scale: int) -> UInt8[np.ndarray, "N ..."]:
    pixels = np.empty(x.shape, np.uint8)
    for part, to in zip(in_parts(x), in_parts(pixels), strict=True):
        if x.dtype.kind == "f":
            exact = part.astype(np.promote_types(x.dtype, np.float32)) * scale
            whole = np.rint(exact)
            # The precision of float16 is below that of a pixel divided by 255.
            error = np.abs(exact - whole) > max(_TOLERANCE, scale * float(np.finfo(x.dtype).eps))
            if error.any():
                raise UserError(
                    f"{who} must have whole numbers from 0 to 255 in {key}, or these numbers "
                    f"divided by 255, got {part[error][0]:g}: try "
                    f"np.rint({'255 * ' if scale > 1 else ''}{key}).astype(np.uint8)"
                )
            to[...] = whole
        else:
            to[...] = part * scale
    if x.ndim == 2:
        return pixels
    axes = pixels[:, None] if x.ndim == 3 else np.moveaxis(pixels, -1, 1)
    return np.ascontiguousarray(axes)


def _labels(who: str, arrays: Mapping[str, np.ndarray]) -> list[UInt[np.ndarray, " N"]]:
    """Check y_train and y_test, and convert them to the smallest type."""
    for key, y in arrays.items():
        if y.dtype.kind == "f":
            raise UserError(
                f"{who} must have whole numbers in {key}, got {y.dtype}: try {key}.astype(int)"
            )
        if y.min() < 0 or y.max() >= MOST_CLASSES:
            raise UserError(
                f"{who} must have labels from 0 to {MOST_CLASSES - 1} in {key}, got "
                f"{y.min() if y.min() < 0 else y.max()}: number the classes from 0"
            )
    train, test = arrays.values()
    counts = np.bincount(train)
    if len(counts) < 2:
        raise UserError(
            f"{who} must have at least 2 classes, got 1: add images of another class, with label 1"
        )
    if not counts.all():
        raise UserError(
            f"{who} must have a training image of each class, got none with label "
            f"{np.flatnonzero(counts == 0)[0]} and labels up to {len(counts) - 1}: number the "
            "classes from 0 without gaps"
        )
    if test.max() >= len(counts):
        raise UserError(
            f"{who} must have labels in y_test below {len(counts)}, because y_train has "
            f"{len(counts)} classes, got {test.max()}: add training images of this class"
        )
    return [y.astype(label_type(len(counts))) for y in (train, test)]
