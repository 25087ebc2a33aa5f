"""Load drawings in colour from Debian's package openclipart-png, with their subjects."""

import hashlib
import logging
import zipfile
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from harness.data.dataset import Dataset, every_fifth
from harness.data.decoding import MOST_PIXELS
from harness.data.file_images import FileImages
from harness.data.files import DataFiles, cache_folder, own_folders, store
from harness.errors import UserError
from harness.places.reading import open_regular

logger = logging.getLogger(__name__)

PACKAGE_FOLDER = Path("/usr/share/openclipart/png")
LICENCE = "public domain (Open Clip Art Library)"
NUM_SUBJECTS = 8
SIDE = 32


def openclipart(files: DataFiles) -> Dataset:
    """Load 32x32 images of the eight largest subjects, in colour and on white; label: the subject.

    Each drawing is shown whole, with white borders. The package (1:0.18+dfsg-19) has 8,121 drawings
    of 22 subjects; 6,981 belong to the eight largest. 16 of these are not read, because they have
    more than 67 million pixels. 5,975 of the others are different at 32x32 pixels: 4,783 training
    images and 1,192 test images. Class 0, computer, has 1,768 of them. Every fifth drawing of a
    subject, sorted by path, is a test image.

    Args:
        files: `data_dir` may be the folder with one folder for each subject, or contain it under
            the name openclipart. Otherwise, the folder of Debian's package is read.

    Raises:
        UserError: there is no such folder, or a drawing cannot be read.
    """
    folder = _folder(files)
    subjects = _largest(folder)
    paths = [path for subject in subjects for path in _drawings(folder / subject)]
    images = _decoded(paths)
    names = [path.relative_to(folder).parts[0] for path in paths]
    labels = np.array([subjects.index(name) for name in names], np.uint8)
    return every_fifth("openclipart", images, labels, LICENCE)


def _folder(files: DataFiles) -> Path:
    own = own_folders("openclipart", files.data_dir)
    folders = [*(one / "openclipart" for one in own), *own, PACKAGE_FOLDER]
    for folder in folders:
        if (folder / "animals").is_dir():
            return folder
    raise UserError(
        "data=openclipart needs the drawings of Debian's package openclipart-png, found none in "
        f"{', '.join(map(str, folders))}: run apt-get install openclipart-png, or copy its folder "
        f"{PACKAGE_FOLDER} to data_dir/openclipart, or use the embedded data=mnist5k"
    )


def _largest(folder: Path) -> list[str]:
    """Return the names of the subjects with the most drawings, the largest first."""
    counts = {
        one.name: sum(1 for _ in one.rglob("*.png")) for one in folder.iterdir() if one.is_dir()
    }
    ordered = sorted(counts, key=lambda name: (-counts[name], name))[:NUM_SUBJECTS]
    if len(ordered) < 2 or counts[ordered[1]] < 5:
        raise UserError(
            f"{folder} must have at least 5 drawings (.png) of each of 2 subjects, got "
            f"{sum(counts.values())} drawings of {len(counts)} subjects: copy the package's folder"
        )
    return ordered


def _drawings(folder: Path) -> list[Path]:
    """List the drawings of a subject, without those that have too many pixels."""
    return [path for path in sorted(folder.rglob("*.png")) if _num_pixels(path) <= MOST_PIXELS]


def _num_pixels(path: Path) -> int:
    """Read the number of pixels of a PNG file from its header."""
    with open_regular(path, follow=True) as file:
        header = file.read(24)
    width, height = (int.from_bytes(header[start : start + 4], "big") for start in (16, 20))
    return width * height


def _decoded(paths: Sequence[Path]) -> UInt8[np.ndarray, "N C H W"]:
    """Decode drawings, or read them from the cache, because decoding takes minutes."""
    key = hashlib.sha256()
    for path in paths:
        key.update(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}\n".encode())
    kept = cache_folder("openclipart") / f"{SIDE}-{key.hexdigest()[:16]}.npz"
    try:
        with open_regular(kept) as file, np.load(file, allow_pickle=False) as arrays:
            images: np.ndarray = arrays["images"]
        if images.dtype == np.uint8 and images.shape == (len(paths), 3, SIDE, SIDE):
            return images
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, UserError):
        pass
    logger.info("decoding %d drawings, which takes minutes at the first time", len(paths))
    images = FileImages([*map(str, paths)], SIDE, 3, "pad").all()
    content = BytesIO()
    np.savez_compressed(content, images=images)
    store(kept, content.getvalue())
    return images
