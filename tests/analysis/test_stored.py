import numpy as np
import pandas as pd
import pytest
import zarr

from analysis.stored import Layout, angles, layer_statistics, layout, sample_masks


@pytest.fixture
def run_dir(tmp_path):
    """A store of three rows. The last row was never committed."""
    root = zarr.open_group(tmp_path / "masks.zarr", mode="w")
    planes = [
        {"tensor": "layer1", "role": "keep", "byte_offset": 0, "num_bits": 8},
        {"tensor": "layer1", "role": "negative", "byte_offset": 1, "num_bits": 8},
    ]
    tensors = [{"name": "layer1", "shape": [2, 4]}]
    root.attrs.update({"tensors": tensors, "planes": planes, "row_bytes": 3})
    root.create_array("weights/layer1", data=np.zeros((2, 4), np.float32))
    root.create_array("weights/layer2", data=np.zeros((1, 2), np.float32))
    root.create_array("masks", data=np.array([[15, 9, 9], [3, 9, 9], [255, 255, 255]], np.uint8))
    root.create_array("inputs/angles", data=np.array([0.0, 90.0, 180.0]))
    return tmp_path


def test_committed_masks_alone_are_read_by_the_layout_of_the_store(run_dir):
    found = layout(run_dir)
    assert found == Layout(3, (("layer1", 0, 8), ("layer1 negative", 1, 8)), 10, 8)
    rows = sample_masks(run_dir, pd.DataFrame({"task_id": [1, 0]}))
    assert rows[:, 0].tolist() == [15, 3]
    assert angles(run_dir).tolist() == [0, 90, 180]


def test_shared_arrays_of_bits_are_counted_as_bits(run_dir):
    shared = [
        {"name": "layer1", "shape": [2, 4], "type": "float32"},
        {"name": "taken layer1", "shape": [3, 3], "type": "bits"},
    ]
    zarr.open_group(run_dir / "masks.zarr").attrs["shared"] = shared
    assert layout(run_dir).shared_bytes == 8 * 4 + 2


def test_density_and_overlap_are_those_of_the_bits():
    masks = Layout(3, (("layer1", 0, 8), ("layer2", 1, 3)), 11, 11)
    # Layer 1: the masks have 4 and 2 ones, and 2 ones are common. Layer 2: the masks have 1 and
    # 2 ones, and no one is common. The other bits are padding.
    rows = np.array([[0b1111, 0b11111001, 0], [0b0011, 0b11111110, 0]], np.uint8)

    first, second = layer_statistics(rows, masks).to_dict("records")

    assert first["density"] == pytest.approx((4 + 2) / 16)
    assert (first["density_low"], first["density_high"]) == (0.25, 0.5)
    assert first["overlap"] == pytest.approx(2 / 8**0.5)
    assert first["chance"] == pytest.approx(8**0.5 / 8)
    assert (second["density"], second["overlap"]) == (0.5, 0.0)


def test_one_mask_has_no_overlap():
    [row] = layer_statistics(np.array([[1]], np.uint8), Layout(1, (("a", 0, 8),), 8, 8)).to_dict(
        "records"
    )
    assert row["density"] == 0.125
    assert np.isnan(row["overlap"])
