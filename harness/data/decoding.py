"""Decode image files into pixels. Only common formats of pixels are opened, and no huge image."""

from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from harness.errors import UserError, one_line
from harness.places.reading import open_regular

# Formats that Pillow may open. Others, such as PostScript, would start other programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)

# An image with more pixels would take more than 200 MB. A file of a few kB can contain such an
# image.
MOST_PIXELS = 2**26

# How an image becomes a square. crop: the largest square in the middle. pad: the whole image, with
# white borders.
Shape = Literal["crop", "pad"]


def decode(
    path: Path, size: int, channels: int, shape: Shape = "crop"
) -> UInt8[np.ndarray, "C size size"]:
    """Read an image file as a square image.

    Args:
        path: path of the file.
        size: number of rows, and of columns, of the result.
        channels: 1 for grey, 3 for red, green and blue.
        shape: how an image becomes a square.

    Raises:
        UserError: the file is missing, is no regular file, has an unknown format, is damaged, or
            has too many pixels.
    """
    try:
        with open_regular(path, follow=True) as file, Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it has {image.width} by {image.height} pixels")
            # JPEG files can be decoded at a half, a quarter or an eighth of their size.
            image.draft(None, (size, size))
            return squared(image, size, channels, shape)
    except UserError:
        raise
    except Exception as error:  # for damaged files, Pillow raises errors of many types
        raise UserError(
            f"{path} must be an image ({', '.join(FORMATS)}) of at most {MOST_PIXELS} pixels, "
            f"got {one_line(error)}: replace or remove the file"
        ) from error


def squared(
    image: Image.Image, size: int, channels: int, shape: Shape
) -> UInt8[np.ndarray, "C size size"]:
    """Convert an image to a square image with 1 or 3 channels; see `decode`."""
    opaque = _on_white(image)
    if shape == "crop":
        square = ImageOps.fit(opaque, (size, size), Image.Resampling.BILINEAR)
    else:
        square = ImageOps.pad(opaque, (size, size), Image.Resampling.BILINEAR, color="white")
    pixels = np.asarray(square.convert("L" if channels == 1 else "RGB"))
    return np.ascontiguousarray(np.moveaxis(pixels.reshape(size, size, channels), -1, 0))


def _on_white(image: Image.Image) -> Image.Image:
    """Convert an image to RGB. Transparent pixels become white."""
    if image.mode.startswith("I;16"):
        # Pillow would set all values above 255 to 255.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"it has pixels of 32 bits (mode {image.mode})")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")
