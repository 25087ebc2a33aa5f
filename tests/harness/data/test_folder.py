"""Folders of images by class: in memory and streamed. Each mistake gives one line."""

import logging
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from harness.data import decoding, folder
from harness.data.catalogue import load_dataset
from harness.data.decoding import decode
from harness.data.file_images import FileImages
from harness.errors import UserError

COLOURS = {"ant": (200, 10, 20), "bee": (10, 200, 30), "cat": (5, 15, 250)}


def save(path, colour, size=(10, 8), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)


def flat(root, num=10):
    """Write `num` images for each of three classes."""
    for name, colour in COLOURS.items():
        for i in range(num):
            save(root / name / f"{i:02}.png", (*colour[:2], colour[2] - i % 5))
    return root


def refused(path, **options):
    with pytest.raises(UserError) as info:
        load_dataset(f"{path}/", options)
    assert "\n" not in str(info.value)
    return str(info.value)


def test_every_fifth_image_of_a_class_is_a_test_image(tmp_path):
    data = load_dataset(f"{flat(tmp_path)}/", {"size": 4})
    assert (data.num_classes, data.input_shape) == (3, (3, 4, 4))
    assert data.train.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert data.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (data.train.images[8] == np.array([10, 200, 30])[:, None, None]).all()
    assert data.test.images[:2, 2, 0, 0].tolist() == [16, 16]  # 04.png and 09.png
    x = data.train.images / 255
    np.testing.assert_allclose(data.train.mean, x.mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(data.train.std, x.std(axis=(0, 2, 3)))


@pytest.mark.parametrize("test", ["test", "val"])
def test_given_splits_are_kept_and_classes_are_numbered_by_name(tmp_path, test):
    for name, colour in COLOURS.items():
        save(tmp_path / "train" / name / "deep" / "a.JPEG", colour)
        save(tmp_path / "train" / name / "b.bmp", colour)
    save(tmp_path / test / "cat" / "a.png", COLOURS["cat"])
    save(tmp_path / test / "ant" / "a.png", COLOURS["ant"])
    (tmp_path / "train" / "ant" / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".hidden").mkdir()
    data = load_dataset(f"{tmp_path}/", {"size": 4, "grey": True})
    assert data.input_shape == (1, 4, 4)
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.test.labels.tolist() == [0, 2]
    assert data.test.images[0, 0, 0, 0] == 68  # 0.299 * 200 + 0.587 * 10 + 0.114 * 20


def test_images_that_take_much_memory_stay_in_their_files(tmp_path, monkeypatch, caplog):
    whole = load_dataset(f"{flat(tmp_path)}/", {"size": 4})
    monkeypatch.setattr(folder, "memory_bytes", lambda: 1000)
    with caplog.at_level(logging.INFO, logger="harness.data.folder"):
        data = load_dataset(f"{tmp_path}/", {"size": 4})
    assert "read from their files when needed" in caplog.text
    assert whole.train.in_memory
    assert not data.train.in_memory
    assert (data.train.mean, data.train.std) == (whole.train.mean, whole.train.std)
    sent = pickle.loads(pickle.dumps(data.train.images))
    assert len(pickle.dumps(data.train.images)) < 24 * 200
    for index in ([3], [[2, 5], [23, 0]], slice(1, 20, 7)):
        index = index if isinstance(index, slice) else np.array(index)
        assert np.array_equal(sent[index], whole.train.images[index])
    assert sent.shape == whole.train.images.shape


def test_moments_need_only_some_of_many_images(tmp_path, monkeypatch):
    flat(tmp_path)
    monkeypatch.setattr(folder, "_MOST_MEASURED", 6)
    data = load_dataset(f"{tmp_path}/", {"size": 4})
    chosen = data.train.images[::4] / 255
    np.testing.assert_allclose(data.train.mean, chosen.mean(axis=(0, 2, 3)))


def test_a_missing_or_empty_folder_is_refused(tmp_path):
    assert "must be a folder of images or a .npz file, got nothing" in refused(tmp_path / "x")
    (tmp_path / "file").write_text("")
    assert "got a file: check the path" in refused(tmp_path / "file")
    assert "a folder for each of 2 to 65535 classes, got 0: put" in refused(tmp_path)
    save(tmp_path / "ant" / "a.png", COLOURS["ant"])
    assert "a folder for each of 2 to 65535 classes, got 1: put" in refused(tmp_path)
    (tmp_path / "bee").mkdir()
    (tmp_path / "bee" / "a.txt").write_text("")
    assert f"{tmp_path}/bee must have images (" in refused(tmp_path)
    assert ".webp), got none: add images, or remove the folder" in refused(tmp_path)
    (tmp_path / "bee" / "a.txt").rename(tmp_path / "bee" / "a.png")
    assert "must have a class of at least 5 images" in refused(tmp_path)


def test_splits_that_do_not_fit_each_other_are_refused(tmp_path):
    flat(tmp_path / "train", 1)
    assert "must have the folder test or val beside train, got neither" in refused(tmp_path)
    flat(tmp_path / "test", 1)
    save(tmp_path / "test" / "dog" / "a.png", COLOURS["cat"])
    assert "got dog only in test: add the folder train/dog, or remove" in refused(tmp_path)


def test_an_unreadable_image_is_refused_by_name(tmp_path):
    path = flat(tmp_path) / "bee" / "03.png"
    path.write_bytes(path.read_bytes()[:-30])
    assert f"{path} must be an image (BMP, GIF, JPEG" in refused(tmp_path)
    path.write_text("no image")
    assert "got UnidentifiedImageError: cannot identify image file" in refused(tmp_path)
    path.unlink()
    os.mkfifo(path)
    assert f"{path} must be a regular file, got a FIFO" in refused(tmp_path)


def test_postscript_is_not_opened(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path, format="EPS")
    with pytest.raises(UserError, match="got UnidentifiedImageError"):
        decode(path, 4, 3)


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    save(tmp_path / "a.png", 0, (300, 200), "L")
    monkeypatch.setattr(decoding, "MOST_PIXELS", 59_999)
    with pytest.raises(UserError, match="of at most 59999 pixels, got ValueError: it has 300 by"):
        decode(tmp_path / "a.png", 4, 3)


@pytest.mark.parametrize("size", [0, 5000])
def test_sizes_have_limits(size, tmp_path):
    assert "size must be in [1, 4096], got" in refused(flat(tmp_path, 5), size=size)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("RGBA", (200, 100, 0, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),  # 0.2 of black on white
        ("LA", (0, 255), (0, 0, 0)),
        ("1", 1, (255, 255, 255)),
        ("I;16", 0x8000, (128, 128, 128)),
    ],
)
def test_all_kinds_of_pixels_become_colours(mode, colour, expected, tmp_path):
    save(tmp_path / "a.png", colour, mode=mode)
    assert decode(tmp_path / "a.png", 2, 3)[:, 0, 0].tolist() == list(expected)


def test_a_palette_with_a_transparent_colour_is_shown_on_white(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "a.gif", transparency=1)
    assert decode(tmp_path / "a.gif", 2, 3)[:, 0, 0].tolist() == [255, 255, 255]
    image.save(tmp_path / "b.png")
    assert decode(tmp_path / "b.png", 2, 3)[:, 0, 0].tolist() == [40, 50, 60]


def test_pixels_of_32_bits_are_refused(tmp_path):
    save(tmp_path / "a.tif", 1.5, mode="F")
    with pytest.raises(UserError, match="pixels of 32 bits"):
        decode(tmp_path / "a.tif", 4, 3)


def test_the_middle_is_cropped_or_white_is_added(tmp_path):
    pixels = np.zeros((4, 12), np.uint8)
    pixels[:, 4:8] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (decode(tmp_path / "a.png", 4, 1) == 255).all()
    padded = decode(tmp_path / "a.png", 12, 1, "pad")[0]
    assert (padded[:4] == 255).all()
    assert (padded[4:8, :4] == 0).all()


def test_all_images_are_read_in_order(tmp_path):
    paths = []
    for i in range(150):
        save(tmp_path / f"{i}.png", i, (3, 3), "L")
        paths.append(str(tmp_path / f"{i}.png"))
    images = FileImages(paths, 3, 1)
    assert images.all()[:, 0, 0, 0].tolist() == list(range(150))
    assert np.array_equal(images.all(), images[:])
