"""Four arrays, or a .npz file of them, make a data set. Each mistake gives one line."""

import os
import zipfile

import numpy as np
import pytest

from harness.data import npz
from harness.data.arrays import dataset_from_arrays
from harness.data.catalogue import load_dataset
from harness.errors import UserError


def arrays(shape=(6, 5), num_classes=3, dtype=np.uint8, **changed):
    """Return the four arrays: 12 training and 6 test images of the given shape."""
    rng = np.random.default_rng(0)
    found = {}
    for split, num in (("train", 12), ("test", 6)):
        found[f"x_{split}"] = rng.integers(0, 256, (num, *shape)).astype(dtype)
        found[f"y_{split}"] = np.arange(num) % num_classes
    return found | changed


def refusal(**changed):
    with pytest.raises(UserError) as info:
        dataset_from_arrays("birds", arrays(**changed))
    assert "\n" not in str(info.value)
    return str(info.value)


@pytest.mark.parametrize(
    ("shape", "input_shape"),
    [((6, 5), (1, 6, 5)), ((6, 5, 1), (1, 6, 5)), ((6, 5, 3), (3, 6, 5)), ((30,), (30,))],
)
def test_images_colours_and_vectors_keep_their_values(shape, input_shape):
    given = arrays(shape)
    data = dataset_from_arrays("birds", given)
    assert (data.name, data.num_classes, data.input_shape) == ("birds", 3, input_shape)
    channels = given["x_train"].reshape(12, 6, 5, -1) if len(shape) > 1 else given["x_train"]
    expected = np.moveaxis(channels, -1, 1) if len(shape) > 1 else channels
    assert np.array_equal(data.train.images, expected)
    assert data.train.images.flags.c_contiguous
    assert data.train.labels.tolist() == given["y_train"].tolist()
    assert data.test.labels.dtype == np.uint8
    assert len(data.test.images) == 6


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (30,)])
def test_moments_are_those_of_the_training_pixels(shape):
    data = dataset_from_arrays("birds", arrays(shape))
    x = data.train.images / 255
    axes = (0, 2, 3) if x.ndim == 4 else (0, 1)
    np.testing.assert_allclose(data.train.mean, np.ravel(x.mean(axes)), rtol=1e-12)
    np.testing.assert_allclose(data.train.std, np.ravel(x.std(axes)), rtol=1e-12)
    assert data.test.mean == data.train.mean


def test_a_channel_of_equal_pixels_is_divided_by_one():
    x = arrays((6, 5, 3))["x_train"]
    x[..., 1] = 7
    data = dataset_from_arrays("birds", arrays((6, 5, 3), x_train=x))
    assert data.train.mean[1] == 7 / 255
    assert data.train.std[1] == 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("scale", [1, 255])
def test_floats_become_the_same_bytes(dtype, scale):
    if dtype is np.int64 and scale == 255:
        return
    given = arrays()
    floats = {key: (given[key] / scale).astype(dtype) for key in ("x_train", "x_test")}
    data = dataset_from_arrays("birds", given | floats)
    assert np.array_equal(data.train.images[:, 0], given["x_train"])
    assert np.array_equal(data.test.images[:, 0], given["x_test"])


def test_more_than_256_classes_get_labels_of_two_bytes():
    y = np.arange(300)
    x = np.zeros((300, 2, 2), np.uint8)
    data = dataset_from_arrays("birds", {"x_train": x, "y_train": y, "x_test": x, "y_test": y})
    assert data.num_classes == 300
    assert data.train.labels.dtype == np.uint16
    assert data.train.labels.tolist() == y.tolist()


X = arrays()["x_train"]
Y = arrays()["y_train"]


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"x_train": X[:, 0, 0]}, "x_train of shape (N, H, W), (N, H, W, C) or (N, P)"),
        ({"x_train": X[:0]}, "with at least one image, got (0, 6, 5): reshape the array"),
        ({"x_test": X[:6, :5]}, "the same shape, got (6, 5) in x_train and (5, 5) in x_test: make"),
        ({"shape": (3, 32, 32)}, "as the last axis, got (12, 3, 32, 32): try np.moveaxis(x_train"),
        ({"y_train": Y[:11]}, "y_train of shape (12,), one label for each image, got (11,)"),
        ({"y_train": np.eye(3)[Y]}, "y_train of shape (12,), one label for each image, got (12, 3"),
        ({"x_train": X.astype(str)}, "must have numbers in x_train, got <U"),
        ({"x_train": X > 9}, "must have numbers in x_train, got bool: convert the array"),
        ({"x_train": [[1], [1, 2]]}, "must have an array x_train, got ValueError"),
        ({"x_train": np.where(X > 9, X, np.nan)}, "finite numbers in x_train, got nan or inf"),
        ({"x_train": X.astype(float) - 1}, "in [0, 1] or [0, 255], got -1 to 255: scale"),
        ({"x_train": X.astype(int) + 9}, "in [0, 1] or [0, 255], got "),
        (
            {"x_train": np.full(X.shape, 0.3), "x_test": X[:6] / 255},
            "got 0.3: try np.rint(255 * x_train).astype(np.uint8)",
        ),
        ({"x_train": X * 0.5}, ".5: try np.rint(x_train).astype(np.uint8)"),
        ({"y_train": Y * 1.0}, "whole numbers in y_train, got float64: try y_train.astype(int)"),
        ({"y_train": Y - 1}, "labels from 0 to 65534 in y_train, got -1: number the classes"),
        ({"y_train": Y + 2**16}, "labels from 0 to 65534 in y_train, got 65538"),
        ({"y_train": Y * 0}, "must have at least 2 classes, got 1: add images of another class"),
        ({"y_train": Y + 1}, "got none with label 0 and labels up to 3: number the classes"),
        ({"y_test": Y[:6] + 3}, "labels in y_test below 3, because y_train has 3 classes, got"),
    ],
)
def test_bad_arrays_are_refused_in_one_line(changed, line):
    message = refusal(**changed)
    assert message.startswith("data=birds must have ")
    assert line in message


def test_missing_arrays_are_named():
    with pytest.raises(UserError, match="got x_train: add y_train, x_test, y_test"):
        dataset_from_arrays("birds", {"x_train": X})


# --- .npz files


def refused(path):
    with pytest.raises(UserError) as info:
        load_dataset(str(path))
    assert "\n" not in str(info.value)
    return str(info.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_file_gives_its_arrays(tmp_path, save):
    given = arrays((6, 5, 3), x_train=np.asfortranarray(arrays((6, 5, 3))["x_train"]))
    save(tmp_path / "birds.npz", **given, unused=np.array("name"))
    data = load_dataset(str(tmp_path / "birds.npz"))
    assert np.array_equal(data.train.images, np.moveaxis(given["x_train"], -1, 1))
    assert data.test.labels.tolist() == given["y_test"].tolist()


def test_an_npz_file_of_pickles_is_refused_and_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    np.savez(tmp_path / "a.npz", **arrays(x_train=np.array([Evil()], dtype=object)))
    assert "must be a .npz file of plain arrays, got ValueError" in refused(tmp_path / "a.npz")
    assert not (tmp_path / "ran").exists()


def test_files_that_are_no_npz_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    assert "must be an existing file, got none: check the path" in refused(path)
    path.write_bytes(b"")
    assert "must be a .npz file of plain arrays, got EOFError" in refused(path)
    path.write_bytes(b"PK\3\4 and no more")
    assert "must be a .npz file of plain arrays, got BadZipFile" in refused(path)
    with path.open("wb") as file:
        np.save(file, X)
    assert "got ValueError: the file has one array without a name" in refused(path)
    np.savez(path, x=X)
    assert "got none: add x_train, y_train, x_test, y_test" in refused(path)


def test_a_damaged_npz_file_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays())
    content = bytearray(path.read_bytes())
    content[200] ^= 1  # a pixel of x_train
    path.write_bytes(content)
    assert "got BadZipFile: Bad CRC-32" in refused(path)


def test_a_pipe_is_refused_and_not_read(tmp_path):
    os.mkfifo(tmp_path / "a.npz")
    assert "a.npz must be a regular file, got a FIFO" in refused(tmp_path / "a.npz")


def test_arrays_larger_than_the_memory_are_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", **arrays((60, 50)))
    monkeypatch.setattr(npz, "memory_bytes", lambda: 100_000)
    assert "must fit into half of this machine's memory (0.0 GB), got 0.0 GB" in refused(
        tmp_path / "a.npz"
    )


def test_a_header_that_says_more_than_the_file_has_allocates_nothing(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays())
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**14,)}
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array_header_1_0(file, header)
    assert "x_train has another size than its header says" in refused(path)
