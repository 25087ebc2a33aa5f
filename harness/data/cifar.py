"""Load CIFAR-10 and CIFAR-100 from the user's copies of the published files.

Both forms of the files are read: the "binary version", and the "python version" of pickles. A
pickle can name any function, so these are read by an unpickler that knows only NumPy's arrays.

Shape letter: N images.
"""

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt8

from harness.data.dataset import Dataset, in_parts, moments
from harness.data.files import DataFiles, own_folders
from harness.errors import UserError, one_line
from harness.places.reading import open_regular
from supsup_core.data import ImageSet

_SHAPE = (3, 32, 32)
_VALUES = 3 * 32 * 32

# A published file has at most 154 MB. A file of a CIFAR folder that is much larger is not read.
_MOST_BYTES = 2**29

Labelled = tuple[UInt8[np.ndarray, "N 3 32 32"], UInt8[np.ndarray, " N"]]


@dataclass(frozen=True)
class _Form:
    """The files of one form of a data set.

    Attributes:
        folder: name of the folder in the published archive.
        train: names of the files of training images.
        test: name of the file of test images.
    """

    folder: str
    train: Sequence[str]
    test: str


@dataclass(frozen=True)
class _Cifar:
    """The files and labels of a data set.

    Attributes:
        forms: the binary form and the python form.
        num_classes: number of classes.
        num_labels: number of bytes before each image of a binary file. The last is the label.
        key: key of the labels in a pickle.
    """

    forms: tuple[_Form, _Form]
    num_classes: int
    num_labels: int
    key: str


_PARTS = range(1, 6)

CIFAR = {
    "cifar10": _Cifar(
        (
            _Form(
                "cifar-10-batches-bin",
                [f"data_batch_{i}.bin" for i in _PARTS],
                "test_batch.bin",
            ),
            _Form("cifar-10-batches-py", [f"data_batch_{i}" for i in _PARTS], "test_batch"),
        ),
        num_classes=10,
        num_labels=1,
        key="labels",
    ),
    "cifar100": _Cifar(
        (
            _Form("cifar-100-binary", ["train.bin"], "test.bin"),
            _Form("cifar-100-python", ["train"], "test"),
        ),
        num_classes=100,
        num_labels=2,
        key="fine_labels",
    ),
}


def cifar10(files: DataFiles) -> Dataset:
    """Load CIFAR-10 from the files in data_dir: 32x32 colour images of 10 classes."""
    return _load("cifar10", files)


def cifar100(files: DataFiles) -> Dataset:
    """Load CIFAR-100 from the files in data_dir: 32x32 colour images of 100 classes."""
    return _load("cifar100", files)


def _load(name: str, files: DataFiles) -> Dataset:
    """Load one of the data sets. The number of images of a file is not checked.

    Raises:
        UserError: a file is missing, cannot be read, or has another structure.
    """
    known = CIFAR[name]
    folder, form = _find(name, files)
    reader = _binary if form is known.forms[0] else _pickled
    parts = [reader(folder / file, known) for file in form.train]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    tested = reader(folder / form.test, known)
    mean, std = moments(in_parts(images))
    train, test = ImageSet(images, labels, mean, std), ImageSet(*tested, mean, std)
    return Dataset(name, train, test, known.num_classes)


def _find(name: str, files: DataFiles) -> tuple[Path, _Form]:
    """Find the folder that has all files of one form."""
    folders = [
        (place, form)
        for own in own_folders(name, files.data_dir)
        for form in CIFAR[name].forms
        for place in (own, own / form.folder)
    ]
    for folder, form in folders:
        if all((folder / file).exists() for file in (*form.train, form.test)):
            return folder, form
    form = CIFAR[name].forms[0]
    places = ", ".join(dict.fromkeys(str(folder) for folder, _ in folders)) or "no folder"
    raise UserError(
        f"data={name} needs {', '.join((*form.train, form.test))}, found no complete copy in "
        f"{places}: unpack the archive of its binary version, set data_dir=FOLDER to its place, "
        "or use the embedded data=mnist5k"
    )


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a damaged pickle raises errors of many types
        raise UserError(
            f"{path} must be a file of CIFAR images, got {one_line(error)}: replace it by the "
            "published file, or use the binary version"
        ) from error


def _read(file: BinaryIO) -> bytes:
    content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"more than {_MOST_BYTES} bytes")
    return content


def _binary(path: Path, known: _Cifar) -> Labelled:
    """Read a file of records: the label or labels, then red, green and blue row by row."""
    size = known.num_labels + _VALUES
    with _file_errors(path), open_regular(path, follow=True) as file:
        content = _read(file)
        if not content or len(content) % size:
            raise ValueError(f"{len(content)} bytes, which are no records of {size} bytes")
        records = np.frombuffer(content, np.uint8).reshape(-1, size)
        return _checked(records[:, known.num_labels :], records[:, known.num_labels - 1], known)


def _pickled(path: Path, known: _Cifar) -> Labelled:
    """Read a pickle: a dictionary with `data` (N, 3072) and the labels."""
    with _file_errors(path), open_regular(path, follow=True) as file:
        found = _ArraysOnly(BytesIO(_read(file)), encoding="latin1").load()
        if not isinstance(found, dict) or not {"data", known.key} <= found.keys():
            raise ValueError(f"no dictionary with data and {known.key}")
        return _checked(np.asarray(found["data"]), np.asarray(found[known.key]), known)


def _checked(pixels: np.ndarray, labels: np.ndarray, known: _Cifar) -> Labelled:
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != _VALUES:
        raise ValueError(f"pixels of {pixels.dtype} {pixels.shape}")
    if labels.shape != pixels.shape[:1] or labels.dtype.kind not in "ui" or not len(labels):
        raise ValueError(f"labels of {labels.dtype} {labels.shape} for {len(pixels)} images")
    if labels.min() < 0 or labels.max() >= known.num_classes:
        raise ValueError(f"labels from {labels.min()} to {labels.max()}")
    return pixels.reshape(-1, *_SHAPE).copy(), labels.astype(np.uint8)


def _encode(text: str, encoding: str) -> bytes:
    """Encode a text as bytes. Old forms of pickles store bytes as a call of _codecs.encode."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding} is not allowed in a file of images")
    return text.encode(encoding)


# The names that the pickle of an array contains. NumPy 1 wrote numpy.core, NumPy 2 writes
# numpy._core.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
}


class _ArraysOnly(pickle.Unpickler):
    """An unpickler of plain values and NumPy's arrays. It imports nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a file of images")
