"""Published collections of colour images: emoji, openclipart, CIFAR-10 and CIFAR-100, as fakes."""

import hashlib
import io
import json
import os
import pickle
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.data import cifar, download, emoji, openclipart
from harness.data.catalogue import load_dataset
from harness.errors import UserError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SUPERMASKS_DATA", raising=False)


def refusal(name, data_dir=None, **options):
    with pytest.raises(UserError) as info:
        load_dataset(name, data_dir=data_dir, **options)
    assert "\n" not in str(info.value)
    return str(info.value)


# --- emoji

CATEGORIES = {"Food": 12, "Flags": 10, "Faces": 20, "Component": 2}


@pytest.fixture
def package(monkeypatch):
    """The two files of a package of a few emoji: each category has its own shade of red."""
    listed, sheet = [], Image.new("RGBA", (8 * 34, 8 * 34))
    for shade, (name, num) in enumerate(CATEGORIES.items()):
        for i in range(num):
            x, y = divmod(len(listed), 8)
            place = (x * 34 + 1, y * 34 + 1, x * 34 + 33, y * 34 + 33)
            sheet.paste((60 * shade, 2 * i, 0, 255), place)
            own = {"category": name, "sheet_x": x, "sheet_y": y, "has_img_twitter": True}
            listed.append(own)
    listed[3]["has_img_twitter"] = False
    listed[5] = listed[4]  # an equal picture
    png = io.BytesIO()
    sheet.save(png, "PNG")
    contents = dict(zip(emoji.FILES, (json.dumps(listed).encode(), png.getvalue()), strict=True))
    known = {file: (hashlib.sha256(c).hexdigest(), len(c)) for file, c in contents.items()}
    monkeypatch.setattr(emoji, "FILES", known)
    return contents


def put(folder, contents):
    for file, content in contents.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)


@pytest.mark.parametrize("place", [".", "node_modules/emoji-datasource-twitter"])
def test_emoji_are_cut_out_and_labelled_by_the_size_of_their_category(package, tmp_path, place):
    put(tmp_path / place, package)
    data = load_dataset("emoji", {"categories": 3}, data_dir=tmp_path)
    assert (data.num_classes, data.input_shape) == (3, (3, 32, 32))
    assert data.licence.startswith("CC-BY 4.0")
    assert np.bincount(data.train.labels).tolist() == [16, 8, 8]  # Faces, Food, Flags
    assert np.bincount(data.test.labels).tolist() == [4, 2, 2]
    for label, shade in enumerate((2, 0, 1)):
        assert (data.train.images[data.train.labels == label, 0] == 60 * shade).all()
    seen = {image.tobytes() for image in data.train.images}
    assert not seen & {image.tobytes() for image in data.test.images}
    assert data.test.images[data.test.labels == 0][:, 1, 5, 5].tolist() == [8, 18, 28, 38]


def test_missing_emoji_say_how_to_get_them(package, tmp_path):
    message = refusal("emoji", tmp_path)
    for part in (*package, "set download=true (62 MB)", "npm install", "data=mnist5k"):
        assert part in message


def test_emoji_are_downloaded_from_npm_and_kept(package, tmp_path, monkeypatch):
    def npm(command, *, cwd, **kwargs):
        assert command[1:3] == ["pack", "emoji-datasource-twitter@16.0.0"]
        with tarfile.open(f"{cwd}/emoji.tgz", "w:gz") as archive:
            for file, content in package.items():
                member = tarfile.TarInfo(f"package/{file}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return subprocess.CompletedProcess(command, 0, b"", b"")

    monkeypatch.setattr(download.shutil, "which", lambda program: program)
    monkeypatch.setattr(download.subprocess, "run", npm)
    first = load_dataset("emoji", {"categories": 2}, download=True)
    monkeypatch.setattr(download.subprocess, "run", None)
    again = load_dataset("emoji", {"categories": 2})
    assert np.array_equal(first.train.images, again.train.images)
    package["emoji.json"] += b" "
    (tmp_path / "cache" / "supermasks" / "emoji" / "emoji.json").unlink()
    monkeypatch.setattr(download.subprocess, "run", npm)
    assert "tried npm (ValueError: emoji.json must have sha256" in refusal("emoji", download=True)


@pytest.mark.parametrize("number", [1, 10])
def test_the_number_of_categories_has_limits(number):
    with pytest.raises(UserError, match=r"categories must be in \[2, 9\], got"):
        load_dataset("emoji", {"categories": number})


# --- openclipart


def draw(path, colour, size=(40, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", size, colour).save(path)


@pytest.fixture
def drawings(tmp_path):
    for i in range(10):
        draw(tmp_path / "animals" / "cats" / f"{i}.png", (i, 0, 0, 255))
        draw(tmp_path / "tools" / f"{i}.png", (0, i, 0, 255))
    draw(tmp_path / "tools" / "small.png", (0, 0, 9, 0))
    for i in range(4):
        draw(tmp_path / "tools" / f"same{i}.png", (0, 3, 0, 255))
    return tmp_path


def test_drawings_are_labelled_by_subject_and_kept_once(drawings, monkeypatch):
    data = load_dataset("openclipart", data_dir=drawings)
    assert data.licence.startswith("public domain")
    # Tools have more files. The black drawing of both subjects belongs to tools.
    assert np.bincount(data.train.labels).tolist() == [9, 8]
    assert np.bincount(data.test.labels).tolist() == [2, 1]
    cats = data.train.images[data.train.labels == 1]
    assert cats[:, 0, 16, 16].tolist() == [1, 2, 3, 4, 6, 7, 8, 9]
    assert (cats[:, :, :7] == 255).all()  # a white border
    monkeypatch.setattr(openclipart, "FileImages", None)
    again = load_dataset("openclipart", data_dir=drawings)  # from the cache
    assert np.array_equal(data.train.images, again.train.images)


def test_a_damaged_cache_of_drawings_is_made_again(drawings):
    first = load_dataset("openclipart", data_dir=drawings)
    (kept,) = (drawings / "cache" / "supermasks" / "openclipart").iterdir()
    kept.write_bytes(kept.read_bytes()[:-40])
    again = load_dataset("openclipart", data_dir=drawings)
    assert np.array_equal(first.test.images, again.test.images)


def test_a_changed_drawing_is_read_again(drawings):
    load_dataset("openclipart", data_dir=drawings)
    draw(drawings / "animals" / "cats" / "0.png", (77, 0, 0, 255))
    data = load_dataset("openclipart", data_dir=drawings)
    assert 77 in data.train.images[data.train.labels == 1][:, 0, 16, 16]


def test_huge_drawings_are_left_out(drawings, monkeypatch):
    draw(drawings / "tools" / "0.png", (0, 0, 0, 255), (41, 20))
    monkeypatch.setattr(openclipart, "MOST_PIXELS", 800)
    data = load_dataset("openclipart", data_dir=drawings)
    assert np.bincount(data.train.labels).tolist() == [8, 8]


def test_missing_or_too_few_drawings_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(openclipart, "PACKAGE_FOLDER", Path("/nowhere"))
    message = refusal("openclipart", tmp_path)
    assert f"found none in {tmp_path}/openclipart, {tmp_path}, /nowhere: run apt-get" in message
    assert "data=mnist5k" in message
    draw(tmp_path / "animals" / "a.png", (0, 0, 0, 255))
    assert "got 1 drawings of 1 subjects" in refusal("openclipart", tmp_path)


# --- CIFAR


def records(name, num, rng):
    known = cifar.CIFAR[name]
    pixels = rng.integers(0, 256, (num, 3072), dtype=np.uint8)
    return pixels, (np.arange(num) % known.num_classes).astype(np.uint8)


@pytest.fixture(params=["cifar10", "cifar100"])
def copies(request, tmp_path):
    """(name, folder of the binary form, folder of the python form, images, labels)."""
    known, rng = cifar.CIFAR[request.param], np.random.default_rng(0)
    binary, python = known.forms
    all_pixels, all_labels = [], []
    pairs = zip((*binary.train, binary.test), (*python.train, python.test), strict=True)
    for own, other in pairs:
        pixels, labels = records(request.param, 6, rng)
        head = np.stack([labels // 5] * (known.num_labels - 1) + [labels], axis=1)
        put(tmp_path / binary.folder, {own: np.hstack([head, pixels]).tobytes()})
        content = {"data": pixels, known.key: labels.tolist(), "batch_label": "made"}
        put(tmp_path / python.folder, {other: pickle.dumps(content, protocol=2)})
        all_pixels.append(pixels.reshape(-1, 3, 32, 32))
        all_labels.append(labels)
    return request.param, tmp_path / binary.folder, tmp_path / python.folder, all_pixels, all_labels


def test_both_forms_give_the_images_in_order(copies):
    name, binary, python, pixels, labels = copies
    for folder in (binary, python, binary.parent):
        data = load_dataset(name, data_dir=folder)
        assert np.array_equal(data.train.images, np.concatenate(pixels[:-1]))
        assert np.array_equal(data.test.images, pixels[-1])
        assert data.train.labels.tolist() == np.concatenate(labels[:-1]).tolist()
        assert data.num_classes == cifar.CIFAR[name].num_classes
        x = data.train.images / 255
        np.testing.assert_allclose(data.train.std, x.std(axis=(0, 2, 3)))


def test_a_pickle_of_python_2_is_read():
    """The opcodes of the published files: text instead of bytes, and the names of NumPy 1."""
    pixels = np.arange(2 * 3072, dtype=np.int64).astype(np.uint8).reshape(2, 3072)
    written = pickle.dumps({"data": pixels, "labels": [1, 0]}, protocol=2)
    old = written.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    found = cifar._ArraysOnly(io.BytesIO(old), encoding="latin1").load()
    assert np.array_equal(found["data"], pixels)


def test_a_pickle_that_would_run_code_is_refused(copies, tmp_path):
    name, _, python, *_ = copies

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    (python / cifar.CIFAR[name].forms[1].test).write_bytes(pickle.dumps({"data": Evil()}))
    message = refusal(name, python)
    assert (
        "must be a file of CIFAR images, got UnpicklingError: posix.mkdir is not allowed" in message
    )
    assert message.endswith("replace it by the published file, or use the binary version")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes, which are no records of"),
        (bytes(3000), "3000 bytes, which are no records of"),
        (b"\xff" * 3073 * 3074, "labels from 255 to 255"),
    ],
)
def test_a_damaged_binary_file_is_refused(copies, content, reason):
    name, binary, *_ = copies
    (binary / cifar.CIFAR[name].forms[0].test).write_bytes(content)
    assert reason in refusal(name, binary)


PIXELS = np.zeros((1, 3072), np.uint8)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps([1]), "no dictionary with data and"),
        (pickle.dumps({"data": 1, "labels": 2, "fine_labels": 3}), "pixels of int64 ()"),
        (b"no pickle", "UnpicklingError"),
        (
            pickle.dumps(
                dict.fromkeys(("data", "labels", "fine_labels"), np.zeros((1, 3072), "u1"))
            ),
            "labels of uint8 (1, 3072) for 1 images",
        ),
    ],
)
def test_a_damaged_pickle_is_refused(copies, content, reason):
    name, _, python, *_ = copies
    (python / cifar.CIFAR[name].forms[1].test).write_bytes(content)
    assert reason in refusal(name, python)


def test_missing_files_are_named(copies, tmp_path):
    name, binary, *_ = copies
    form = cifar.CIFAR[name].forms[0]
    (binary / form.test).unlink()
    message = refusal(name, binary)
    assert f"data={name} needs {form.train[0]}" in message
    assert "unpack the archive of its binary version" in message
    assert "found no complete copy in no folder" in refusal(name)


def test_no_more_than_a_limit_is_read(copies, monkeypatch):
    name, binary, *_ = copies
    monkeypatch.setattr(cifar, "_MOST_BYTES", 1000)
    assert "ValueError: more than 1000 bytes" in refusal(name, binary)
