"""Images that stay in their files, and are decoded whenever they are indexed.

Shape letters: N images, C channels, S pixels of a side.
"""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from harness.data.decoding import Shape, decode

_PART = 64  # images that a thread decodes at a time


@dataclass(frozen=True, eq=False)
class FileImages:
    """Square images in files; supsup_core.data.Images says how they are used.

    Each process that gets a copy of this object reads the files itself, so the paths must be valid
    on all machines.

    Attributes:
        paths: absolute path of each image.
        size: S, number of rows, and of columns, of a decoded image.
        channels: C: 1 for grey, 3 for red, green and blue.
        square: how an image becomes a square.
    """

    paths: Sequence[str]
    size: int
    channels: int
    square: Shape = "crop"

    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, S, S)."""
        return len(self.paths), self.channels, self.size, self.size

    @property
    def num_bytes(self) -> int:
        """Size of all decoded images in bytes."""
        return len(self.paths) * self.channels * self.size**2

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any, /) -> UInt8[np.ndarray, "... C S S"]:
        """Read the images of an index array of any shape, or of a slice.

        Raises:
            UserError: a file cannot be read.
        """
        numbers = np.arange(len(self))[index]
        pixels = np.empty((*numbers.shape, *self.shape[1:]), np.uint8)
        for place, number in np.ndenumerate(numbers):
            path = Path(self.paths[number])
            pixels[place] = decode(path, self.size, self.channels, self.square)
        return pixels

    def all(self) -> UInt8[np.ndarray, "N C S S"]:
        """Read all images. Several threads decode them.

        Raises:
            UserError: a file cannot be read.
        """
        pixels = np.empty(self.shape, np.uint8)
        parts = [slice(start, start + _PART) for start in range(0, len(self), _PART)]
        with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
            # `decode` has a limit of its own, and refuses with an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            for part, read in zip(parts, pool.map(self.__getitem__, parts), strict=True):
                pixels[part] = read
        return pixels
