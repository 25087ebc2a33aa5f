from itertools import islice

import numpy as np
import pytest
import torch

from supsup_core.data import ImageSet, batches, normalise


def first(count, *arguments):
    return list(islice(batches(*arguments), count))


def test_batches_have_one_size_and_an_epoch_repeats_no_image():
    found = first(6, 0, 0, 50, 16)  # an epoch has 3 batches of 16, and 2 images are left
    assert [len(batch) for batch in found] == [16] * 6
    for epoch in (found[:3], found[3:]):
        drawn = np.concatenate(epoch)
        assert len(set(drawn.tolist())) == 48
        assert drawn.min() >= 0
        assert drawn.max() < 50


def test_epochs_have_orders_of_their_own():
    found = first(6, 0, 0, 48, 16)
    assert sorted(np.concatenate(found[:3])) == sorted(np.concatenate(found[3:])) == list(range(48))
    assert not np.array_equal(np.concatenate(found[:3]), np.concatenate(found[3:]))


def test_batches_are_the_same_again():
    for one, again in zip(first(5, 3, 7, 20, 8), first(5, 3, 7, 20, 8), strict=True):
        assert np.array_equal(one, again)


def test_batches_differ_by_seed_and_key():
    (base,), (other_key,), (other_seed,) = (
        first(1, s, k, 99, 32) for s, k in [(0, 0), (0, 1), (1, 0)]
    )
    assert not np.array_equal(base, other_key)
    assert not np.array_equal(base, other_seed)
    assert not np.array_equal(other_key, other_seed)


def test_fewer_images_than_a_batch_are_all_taken():
    for batch in first(3, 0, 0, 5, 128):
        assert sorted(batch) == [0, 1, 2, 3, 4]


def test_first_batch_is_pinned():
    assert first(1, 0, 0, 20, 8)[0].tolist() == [10, 12, 15, 1, 2, 11, 3, 4]


def test_normalise_subtracts_the_mean_and_divides_by_the_deviation():
    pixels = torch.arange(256, dtype=torch.uint8)
    expected = (np.arange(256) / 255 - 0.1307) / 0.3081
    normal = normalise(pixels, (0.1307,), (0.3081,))
    assert normal.dtype == torch.float32
    np.testing.assert_allclose(normal, expected, atol=1e-6)
    assert pixels.tolist() == list(range(256))


def test_every_channel_has_its_own_mean_and_deviation(rng):
    pixels = rng.integers(0, 256, (2, 5, 3, 4, 4), dtype=np.uint8)  # tasks, images, channels, ...
    means, stds = (0.2, 0.5, 0.7), (0.1, 0.2, 0.3)
    found = normalise(torch.from_numpy(pixels), means, stds)
    for c, (mean, std) in enumerate(zip(means, stds, strict=True)):
        alone = normalise(torch.from_numpy(pixels[:, :, c]), (mean,), (std,))
        torch.testing.assert_close(found[:, :, c], alone, rtol=1e-6, atol=1e-6)


def images_of(shape, mean=(0.5,), std=(0.3,)):
    return ImageSet(np.zeros((4, *shape), np.uint8), np.zeros(4, np.uint8), mean, std)


@pytest.mark.parametrize(("shape", "channels"), [((12,), 1), ((3, 4), 1), ((3, 2, 2), 3)])
def test_images_of_three_axes_have_channels(shape, channels):
    data = images_of(shape)
    assert (data.shape, data.channels, data.flat.shape) == (shape, channels, (4, 12))


@pytest.mark.parametrize(
    ("shape", "num_means", "num_stds"),
    [((12,), 3, 3), ((3, 4), 3, 3), ((3, 2, 2), 2, 2), ((3, 2, 2), 3, 1), ((3, 2, 2), 0, 0)],
)
def test_means_that_are_neither_one_nor_one_a_channel_are_refused(shape, num_means, num_stds):
    with pytest.raises(ValueError, match=f"got {num_means} values of mean and {num_stds}"):
        images_of(shape, (0.5,) * num_means, (0.3,) * num_stds)


def test_labels_and_images_of_different_numbers_are_refused(no_shape_checks):
    with pytest.raises(ValueError, match="got 3 labels for 4 images"):
        ImageSet(np.zeros((4, 16), np.uint8), np.zeros(3, np.uint8), mean=(0.5,), std=(0.3,))


class Read:
    """Images that are read when they are indexed."""

    shape, dtype = (4, 16), np.dtype(np.uint8)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return np.arange(64, dtype=np.uint8).reshape(4, 16)[index]


def test_images_that_are_not_in_memory_can_only_be_indexed():
    images = ImageSet(Read(), np.zeros(4, np.uint16), mean=(0.5,), std=(0.3,))
    assert not images.in_memory
    assert images.shape == (16,)
    assert images.images[np.array([2])].tolist() == [list(range(32, 48))]
    with pytest.raises(ValueError, match="images must be in memory, got 4 images that are read"):
        _ = images.flat
    assert ImageSet(np.zeros((4, 16), np.uint8), np.zeros(4, np.uint8), (0.5,), (0.3,)).in_memory


def test_pixels_of_another_type_are_refused():
    with pytest.raises(ValueError, match="images must have pixels of uint8, got float32"):
        ImageSet(np.zeros((4, 16), np.float32), np.zeros(4, np.uint8), mean=(0.5,), std=(0.3,))
