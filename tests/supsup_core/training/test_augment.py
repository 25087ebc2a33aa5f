import numpy as np
import pytest

from supsup_core.training.augment import PADDING, augmented


@pytest.fixture
def images(rng):
    return rng.integers(1, 256, (40, 2, 6, 7), dtype=np.uint8)


def cut_at(image, top, left):
    padded = np.pad(image, [(0, 0), (PADDING, PADDING), (PADDING, PADDING)])
    return padded[:, top : top + image.shape[1], left : left + image.shape[2]]


def positions(image, found):
    """Return the positions at which the cut image equals the found image."""
    all_cuts = [(top, left) for top in range(2 * PADDING + 1) for left in range(2 * PADDING + 1)]
    return [place for place in all_cuts if np.array_equal(cut_at(image, *place), found)]


def test_nothing_changes_without_augmentation(images):
    assert augmented(images, "none", 0, 0, 0) is images


def test_a_crop_is_the_padded_image_at_some_position(images):
    found = augmented(images, "crop", 0, 3, 5)
    places = [positions(image, cut) for image, cut in zip(images, found, strict=True)]
    assert found.shape == images.shape
    assert found.dtype == np.uint8
    assert all(places)
    assert len({one[0] for one in places if len(one) == 1}) > 20


def test_half_of_the_images_are_mirrored(images):
    found = augmented(images, "crop_flip", 0, 3, 5)
    pairs = list(zip(images, found, strict=True))
    plain = [bool(positions(image, cut)) for image, cut in pairs]
    mirrored = [
        bool(positions(image, cut[:, :, ::-1])) or one
        for (image, cut), one in zip(pairs, plain, strict=True)
    ]
    assert all(mirrored)
    assert 10 < sum(plain) < 30


def test_changes_depend_on_seed_task_and_step_only(images):
    first = augmented(images, "crop", 0, 3, 5)
    assert np.array_equal(first, augmented(images, "crop", 0, 3, 5))
    for other in [(1, 3, 5), (0, 4, 5), (0, 3, 6)]:
        assert not np.array_equal(first, augmented(images, "crop", *other))


def test_images_without_channels_keep_their_shape(images):
    assert augmented(images[:, 0], "crop_flip", 0, 0, 0).shape == (40, 6, 7)


def test_vectors_are_refused(images):
    with pytest.raises(ValueError, match="augment must be none for inputs without rows"):
        augmented(images[:, 0, 0], "crop", 0, 0, 0)
