"""zarr and numpy alone can use a stored mask, as the guide and the attributes describe."""

import re
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from harness.config.schema import Config
from harness.data.catalogue import load_dataset
from harness.scale import run
from harness.tables.files import read_tables
from harness.tables.schemas import TASKS
from supsup_core.names import METHODS, load


def gain_by_hand(about: Any, tensor: dict[str, Any], row: np.ndarray) -> np.ndarray:
    """Return the gain of a masked tensor, as the attribute `decode` describes it."""
    floats = [
        (array["role"], row[array["byte_offset"] :][: 4 * prod(array["shape"])].view("<f4"))
        for array in about["floats"]
        if array["tensor"] == tensor["name"]
    ]
    if heads := [values for role, values in floats if role == "head"]:
        return heads[0].reshape(tensor["shape"])
    if factors := [values for role, values in floats if role == "factor"]:
        return np.outer(*factors)
    if not any(plane["tensor"] == tensor["name"] for plane in about["planes"]):
        return np.ones(tensor["shape"], np.float32)
    gain = np.zeros(tensor["shape"], np.float32)
    for plane in about["planes"]:
        if plane["tensor"] == tensor["name"]:
            packed = row[plane["byte_offset"] :]
            bits = np.unpackbits(packed, count=plane["num_bits"], bitorder=about["bit_order"])
            gain += plane["coefficient"] * bits.reshape(tensor["shape"])
    for role, values in floats:
        if role == "scale":
            gain *= values
    return gain


def weight_by_hand(root: Any, source: str, task_id: int, number: int) -> np.ndarray:
    """Return the weights of a layer, as the attributes describe them."""
    about = root.attrs
    if "trained_weights" not in about or f"shared/{source}" not in root:
        fixed: np.ndarray = root[f"weights/{source}"][...]
        return fixed
    # The weights after this task; if they are kept after task 0 only, the weights after task 0.
    after = about["after_task"]
    weight: np.ndarray = root[f"shared/{source}"][0 if after == [0] else after.index(task_id)]
    if "task_weights" not in about:
        return weight
    name = np.random.SeedSequence(about["seed"], spawn_key=(16, task_id, number))
    g, num_inputs = np.random.Generator(np.random.Philox(name)), weight.shape[1]
    if about["method_options"].get("context") == "binary":
        signed: np.ndarray = weight * g.choice([-1.0, 1.0], num_inputs)
        return signed
    q, r = np.linalg.qr(g.standard_normal((num_inputs, num_inputs)))
    rotated: np.ndarray = weight @ (q * np.sign(np.diagonal(r)))
    return rotated


def rotated_by_the_guide() -> Callable[[np.ndarray, float], np.ndarray]:
    """Return the function `rotated` of the guide's page on results."""
    page = (Path(__file__).parents[3] / "docs" / "results.md").read_text()
    (code,) = re.findall(r"```python\n(def rotated\(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {"np": np}
    exec(code, names)
    found: Callable[[np.ndarray, float], np.ndarray] = names["rotated"]
    return found


def num_right_by_hand(
    store: Path, task_id: int, pixels: np.ndarray, labels: np.ndarray
) -> tuple[int, int]:
    """Return (number of right labels, number of labels) of a stored mask, without project code."""
    root = zarr.open_group(store, mode="r")
    about = root.attrs
    assert about["activation"] == "relu"
    assert about["bit_order"] == "little"

    inputs = root["inputs"]
    assert ("images" in about) == ("bilinear" in str(about["family_options"]))
    if "images" in about:  # the rule that comes before the choice of pixels
        images = pixels.reshape(len(pixels), 8, 8)
        pixels = rotated_by_the_guide()(images, inputs["angles"][task_id]).reshape(pixels.shape)
    if "permutations" in inputs:  # x_task[j] = x[permutation[j]]
        pixels = pixels[:, inputs["permutations"][task_id]]
    if "sources" in inputs:  # the same rule; the index after the last pixel means black
        black = np.zeros((len(pixels), 1), pixels.dtype)
        pixels = np.hstack([pixels, black])[:, inputs["sources"][task_id]]
    if "classes" in inputs:
        members = np.isin(labels, inputs["classes"][task_id])
        pixels, labels = pixels[members], labels[members]

    mean, std = (about["normalisation"][name][0] for name in ("mean", "std"))
    x = (pixels / 255 - mean) / std
    row = root["masks"][task_id]
    for number, tensor in enumerate(about["tensors"]):
        weight = weight_by_hand(root, tensor["source"], task_id, number)
        effective = weight * gain_by_hand(about, tensor, row)
        x = (np.maximum(x, 0) if number else x) @ effective.T
    return int((x.argmax(axis=1) == labels).sum()), len(labels)


BILINEAR = "family_options.interpolation=bilinear"
CASES = [
    *(("threshold", [family]) for family in ["permuted", "rotated", "permuted_rotated", "split"]),
    *(("threshold", [family, BILINEAR]) for family in ["rotated", "permuted_rotated"]),
    *((method, ["permuted"]) for method in METHODS if method != "threshold"),
    *((method, ["permuted", "method_options.trunk=trained"]) for method in ("batche", "heads")),
    ("psp", ["permuted", "method_options.context=binary"]),
]


@pytest.mark.parametrize(("method", "family"), CASES)
def test_zarr_and_numpy_alone_give_the_accuracy_in_the_table(
    method: str, family: list[str], tmp_path: Path, composed: Callable[..., Config]
) -> None:
    name, *options = family
    in_sequence = ["train.block=1", "evaluate.checkpoints=[1,2,3,4,5]"]
    is_sequence = load("method", METHODS, method)().order == "sequence"
    algorithm = "given" if is_sequence else "max_logit"
    overrides = [
        *f"data=digits tasks=5 family={name} method={method} network=mlp outputs=20".split(),
        *options,
        *("network_options.hidden=[24,16]", "train.steps=60", "train.learning_rate=0.01"),
        *("train.smoothing=0.9", "train.block=2", f"evaluate.algorithms=[{algorithm}]"),
        *("evaluate.tasks=1", "executor=serial", f"run_dir={tmp_path}"),
        *(in_sequence if is_sequence else ()),
    ]
    assert run(composed(*overrides)) == 0

    test = load_dataset("digits").test
    table = read_tables(tmp_path / "log", TASKS).to_pylist()
    assert [row["task_id"] for row in table] == list(range(5))
    accuracies = []
    for row in table:
        right, total = num_right_by_hand(
            tmp_path / "masks.zarr", row["task_id"], test.flat, test.labels
        )
        accuracies.append(right / total)
        assert right / total == row["accuracy"], row["task_id"]
    if not load("method", METHODS, method)().searches:  # 60 random masks are no better than chance
        assert np.mean(accuracies) > 0.2  # chance is 0.1, so the states have an effect
    assert len(set(accuracies)) > 1
