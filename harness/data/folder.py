"""Load a folder of images by class: one folder for each class, whose name is the class's name."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from harness.data.dataset import EVERY, MOST_CLASSES, Dataset, in_parts, label_type, moments
from harness.data.decoding import SUFFIXES
from harness.data.file_images import FileImages
from harness.data.files import DataFiles
from harness.errors import UserError
from harness.places.machine import memory_bytes
from supsup_core.data import Images, ImageSet
from supsup_core.knobs import Knob, check_knobs

logger = logging.getLogger(__name__)

TEST_FOLDERS = ("test", "val")
# Largest number of training images from which mean and standard deviation are computed. The number
# is the same on all machines, so that a run can continue on another machine.
_MOST_MEASURED = 5000

_LARGEST_SHARE = 4  # decoded images stay in memory if they take at most this part of it: 1/4

Size = Annotated[
    int,
    Knob(
        "Number of rows, and of columns, of each image. The largest square in the middle of an "
        "image is resized to this size.",
        at_least=1,
        at_most=4096,
    ),
]
Grey = Annotated[bool, Knob("Whether images have one grey channel instead of three colours.")]


@dataclass(frozen=True)
class _Split:
    """The files of one split: absolute paths, and the number of the class of each."""

    paths: list[str]
    labels: list[int]

    @classmethod
    def of(cls, paths: Mapping[int, Sequence[str]]) -> "_Split":
        """Join the paths of all classes: number of a class -> paths of its images."""
        labels = [number for number, own in paths.items() for _ in own]
        return cls([path for own in paths.values() for path in own], labels)


def image_folder(files: DataFiles, *, size: Size = 32, grey: Grey = False) -> Dataset:
    """Load images from folders by class.

    Either the folder has the folders train and test (or val), each with one folder for each class.
    Or it has one folder for each class: every fifth image of a class, sorted by name, is then a
    test image. Classes are numbered in the order of their names. Files whose names do not end as
    images do, and files and folders whose names begin with a dot, are ignored. Transparent pixels
    are shown on white.

    If the decoded images of both splits take more than a quarter of this machine's memory, they
    stay in their files, and each worker reads the images that it needs. Mean and standard deviation
    are those of the training images, or of 5,000 evenly spaced ones if there are more.

    Args:
        files: `path` is the folder.
        size: number of rows, and of columns, of an image.
        grey: whether images have one channel instead of three.

    Raises:
        UserError: the folder is missing or has another structure, a class has no image, there are
            fewer than two classes, or an image cannot be read.
    """
    check_knobs(image_folder, {"size": size})
    assert files.path is not None
    folder = files.path.expanduser().resolve()
    names, train, test = _splits(folder)
    channels = 1 if grey else 3
    found = [FileImages(one.paths, size, channels) for one in (train, test)]
    num_bytes = sum(one.num_bytes for one in found)
    streamed = num_bytes > memory_bytes() // _LARGEST_SHARE
    logger.info(
        "data=%s: %d classes, %d training images, %d test images%s",
        *(files.path, len(names), len(train.paths), len(test.paths)),
        f"; read from their files when needed, because they take {num_bytes / 1e9:.0f} GB"
        if streamed
        else "",
    )
    images: list[Images] = [one if streamed else one.all() for one in found]
    measured = np.arange(0, len(images[0]), -(-len(images[0]) // _MOST_MEASURED))
    mean, std = moments(images[0][part] for part in in_parts(measured))
    kind = label_type(len(names))
    sets = [
        ImageSet(pixels, np.array(one.labels, kind), mean, std)
        for pixels, one in zip(images, (train, test), strict=True)
    ]
    return Dataset(str(files.path), sets[0], sets[1], num_classes=len(names))


def _splits(folder: Path) -> tuple[list[str], _Split, _Split]:
    """List the names of the classes, the training images and the test images."""
    if not folder.is_dir():
        raise UserError(
            f"data={folder} must be a folder of images or a .npz file, got "
            f"{'a file' if folder.exists() else 'nothing'}: check the path, or use the embedded "
            "data=mnist5k"
        )
    return _given_splits(folder) if (folder / "train").is_dir() else _every_fifth(folder)


def _given_splits(folder: Path) -> tuple[list[str], _Split, _Split]:
    """List the classes and images of a folder that has the folders train and test (or val)."""
    test = next((one for one in TEST_FOLDERS if (folder / one).is_dir()), None)
    if test is None:
        raise UserError(
            f"data={folder} must have the folder test or val beside train, got neither: add one, "
            "or put the folders of the classes directly into the folder"
        )
    names, tested = _classes(folder / "train"), _classes(folder / test)
    if more := sorted(set(tested) - set(names)):
        raise UserError(
            f"data={folder} must have training images of each class, got {more[0]} only in {test}: "
            f"add the folder train/{more[0]}, or remove {test}/{more[0]}"
        )
    train = _Split.of({i: _images(folder / "train" / name) for i, name in enumerate(names)})
    return (
        names,
        train,
        _Split.of({names.index(one): _images(folder / test / one) for one in tested}),
    )


def _every_fifth(folder: Path) -> tuple[list[str], _Split, _Split]:
    """List the classes and images of a folder without splits: every fifth is a test image."""
    names = _classes(folder)
    paths = {i: _images(folder / name) for i, name in enumerate(names)}
    tested = {i: own[EVERY - 1 :: EVERY] for i, own in paths.items()}
    if not any(tested.values()):
        raise UserError(
            f"data={folder} must have a class of at least {EVERY} images, because every fifth is a "
            "test image, got fewer: add images, or the folders train and test"
        )
    for own in paths.values():
        del own[EVERY - 1 :: EVERY]
    return names, _Split.of(paths), _Split.of(tested)


def _classes(folder: Path) -> list[str]:
    """List the names of a folder's classes, sorted."""
    names = sorted(one.name for one in os.scandir(folder) if one.is_dir() and one.name[0] != ".")
    if not 2 <= len(names) <= MOST_CLASSES:
        raise UserError(
            f"data={folder} must have a folder for each of 2 to {MOST_CLASSES} classes, got "
            f"{len(names)}: put the images of each class into a folder of their own"
        )
    return names


def _images(folder: Path) -> list[str]:
    """List the absolute paths of the images in a class's folder, sorted.

    Raises:
        UserError: there is no image.
    """
    found = sorted(
        os.path.join(root, name)  # noqa: PTH118  # pathlib is slow for a million files
        for root, _, names in os.walk(folder)
        for name in names
        if name[0] != "." and os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122
    )
    if not found:
        raise UserError(
            f"{folder} must have images ({', '.join(sorted(SUFFIXES))}), got none: add images, or "
            "remove the folder"
        )
    return found
