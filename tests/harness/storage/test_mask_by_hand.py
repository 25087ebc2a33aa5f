"""A stored mask serves with zarr and numpy alone, by what README and the attributes say."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from hydra import compose, initialize_config_module

from harness.config.commandline import from_hydra
from harness.data.catalogue import load_dataset
from harness.scale import run
from harness.tables.files import read_tables
from harness.tables.schemas import TASKS


def num_right_by_hand(
    store: Path, task_id: int, pixels: np.ndarray, labels: np.ndarray
) -> tuple[int, int]:
    """Labels that one stored mask gets right, and of how many. Nothing of the project in here."""
    root = zarr.open_group(store, mode="r")
    about = root.attrs
    assert about["activation"] == "relu"
    assert about["bit_order"] == "little"

    inputs = root["inputs"]
    if "permutations" in inputs:  # x_task[j] = x[permutation[j]]
        pixels = pixels[:, inputs["permutations"][task_id]]
    if "sources" in inputs:  # the same, where one past the last pixel means black
        black = np.zeros((len(pixels), 1), np.uint8)
        pixels = np.hstack([pixels, black])[:, inputs["sources"][task_id]]
    if "classes" in inputs:
        members = np.isin(labels, inputs["classes"][task_id])
        pixels, labels = pixels[members], labels[members]

    x = (pixels / 255 - about["normalisation"]["mean"]) / about["normalisation"]["std"]
    row = root["masks"][task_id]
    for number, layer in enumerate(about["layers"]):
        packed = row[layer["byte_offset"] :]
        bits = np.unpackbits(packed, count=layer["num_bits"], bitorder=about["bit_order"])
        weight = root[f"weights/{layer['name']}"][...] * bits.reshape(layer["shape"])
        x = (np.maximum(x, 0) if number else x) @ weight.T
    return int((x.argmax(axis=1) == labels).sum()), len(labels)


@pytest.mark.parametrize("family", ["permuted", "rotated", "permuted_rotated", "split"])
def test_zarr_and_numpy_alone_give_the_accuracy_in_the_table(family: str, tmp_path: Path) -> None:
    overrides = (
        f"data=digits tasks=5 family={family} network=mlp hidden=[24,16] outputs=20 "
        "train.steps=60 train.learning_rate=0.01 train.smoothing=0.9 train.block=2 "
        f"evaluate.algorithms=[max_logit] evaluate.tasks=1 executor=serial run_dir={tmp_path}"
    )
    with initialize_config_module("harness.conf", version_base="1.3"):
        config = from_hydra(compose("config", overrides.split()))
    assert run(config) == 0

    data = load_dataset("digits")
    table = read_tables(tmp_path / "log", TASKS).to_pylist()
    assert [row["task_id"] for row in table] == list(range(5))
    accuracies = []
    for row in table:
        right, total = num_right_by_hand(
            tmp_path / "masks.zarr", row["task_id"], data.test_images, data.test_labels
        )
        accuracies.append(right / total)
        assert right / total == row["accuracy"], row["task_id"]
    assert np.mean(accuracies) > 0.4  # chance is a tenth: the masks do something
    assert len(set(accuracies)) > 1
