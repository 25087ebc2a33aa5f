"""Masks are shown as images, with each pixel at its place in the original image."""

import base64
import io

import numpy as np
import pytest
import zarr
from PIL import Image

from analysis import pictures

ORDER = np.array([2, 0, 3, 1])  # pixel j of the task's image is pixel ORDER[j] of the original


def make_store(run, *, shape=(2, 4), over="weights", channels=1, **attributes):
    """Make a store with one task. Its mask keeps weight 0 of unit 0 and weights 0, 1 of unit 1."""
    root = zarr.open_group(run / "masks.zarr", mode="w")
    plane = {"tensor": "a", "coefficient": 1, "byte_offset": 0, "num_bits": 8}
    tensor = {"name": "a", "source": "a", "shape": shape, "over": over}
    root.attrs.update({"planes": [plane], "tensors": [tensor], **attributes})
    root.attrs["normalisation"] = {"mean": [0.0] * channels, "std": [1.0] * channels}
    root.create_array("weights/a", data=np.arange(1, 9, dtype=np.float32).reshape(shape))
    root.create_array("masks", data=np.array([[0b00110001]], np.uint8))
    root.create_array("inputs/permutations", data=ORDER[None].astype(np.uint16))
    return run


def test_a_permuted_mask_is_shown_in_the_order_of_the_original_image(tmp_path):
    [layer] = pictures.first_layers(make_store(tmp_path), [0])
    # Weight 0 belongs to the original pixel 2, and weight 1 to the original pixel 0.
    assert pictures.kept_by_pixel(layer).tolist() == [[0.5, 0], [1, 0]]
    assert pictures.weights_of_unit(layer, 0).tolist() == [[0, 0], [1, 0]]
    assert pictures.weights_of_unit(layer, 1).tolist() == [[6, 0], [5, 0]]


@pytest.mark.parametrize(
    ("changed", "side"),
    [({"shape": (2, 2, 2)}, None), ({"channels": 3}, None), ({}, 2)],
)
def test_other_layers_are_shown_as_a_matrix(changed, side, tmp_path):
    [layer] = pictures.first_layers(make_store(tmp_path, **changed), [0])
    assert layer.side == side
    assert pictures.matrix(layer).shape == (2, 4)


def test_a_mask_of_a_stream_may_be_of_another_task_so_no_pixel_is_moved(tmp_path):
    [layer] = pictures.first_layers(make_store(tmp_path), [0], is_stream=True)
    assert layer.side is None
    assert pictures.matrix(layer).tolist() == [[1, 0, 0, 0], [1, 1, 0, 0]]


@pytest.mark.parametrize("changed", [{"over": "units"}, {"trained_weights": "rule"}])
def test_masks_over_units_and_trained_weights_have_no_pictures(changed, tmp_path):
    assert list(pictures.first_layers(make_store(tmp_path, **changed), [0])) == []


def test_a_picture_has_whole_pixels_in_the_colours_of_its_map():
    url = pictures.as_url(np.array([[0.0, 1.0]]), "Greys", 0, 1)
    image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("L")
    assert image.size == (112, 56)
    assert [image.getpixel(at) for at in ((0, 0), (55, 55), (56, 0), (111, 0))] == [255, 255, 0, 0]
