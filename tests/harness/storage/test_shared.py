"""Shared arrays of a store: written whole, read with plain zarr, and checked against damage."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from harness.errors import UserError
from harness.storage.chunks import CorruptMask
from harness.storage.compare import check_store
from harness.storage.content import StoreContent
from harness.storage.create import create_store
from harness.storage.shared import SharedSpec
from harness.storage.store import MaskStore
from supsup_core.baselines.lower_bound import LowerBound
from supsup_core.methods.protocol import layout_of
from supsup_core.networks.mlp import MLP

NETWORK = MLP("t", (6, 4, 3))
LAYOUT = layout_of(NETWORK, LowerBound())
SHAPES = {"layer1": (4, 6), "layer2": (3, 4), "total": (), "taken": (3, 7)}
SPEC = SharedSpec(SHAPES, (2, 4), frozenset(["taken"]))
CONTENT = StoreContent(
    layout=LAYOUT,
    weights={name: weight.numpy() for name, weight in NETWORK.weights(0).items()},
    inputs={"permutations": np.arange(30, dtype="u2").reshape(5, 6)},
    capacity=5,
    attributes={"run_id": "r", "network": "t"},
    shared=SPEC,
)


@pytest.fixture
def store(tmp_path):
    create_store(tmp_path, CONTENT)
    return MaskStore.open(tmp_path)


def arrays(seed):
    rng = np.random.default_rng(seed)
    drawn = {name: rng.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}
    return drawn | {"taken": drawn["taken"] > 0}


def test_plain_zarr_reads_what_was_kept(store, tmp_path):
    for task in (4, 2):
        store.shared.write(task, arrays(task))
    root = zarr.open_group(tmp_path / "masks.zarr", mode="r")
    assert root.attrs["after_task"] == [2, 4]
    for place, task in enumerate((2, 4)):
        for name, expected in arrays(task).items():
            found = root[f"shared/{name}"]
            if name in SPEC.bits:
                assert found.shape == (2, 3)  # 21 bits in 3 bytes
                bits = np.unpackbits(found[place], count=expected.size, bitorder="little")
                assert np.array_equal(bits, expected.ravel())
            else:
                assert found.dtype == np.float32
                assert np.array_equal(found[place], expected)
    again = MaskStore.open(tmp_path).shared
    for task in (2, 4):
        for name, expected in arrays(task).items():
            assert again.read(task)[name].dtype == expected.dtype
            assert np.array_equal(again.read(task)[name], expected)


def test_an_array_of_bits_takes_one_bit_per_value():
    assert SPEC.num_bytes == 2 * (4 * (24 + 12 + 1) + 3)


def test_only_some_tasks_are_kept(store):
    assert [i for i in range(5) if store.shared.keeps(i)] == [2, 4]
    assert not store.shared.has(2)
    assert store.shared.lacking({0, 1, 2, 3}) == [2]
    store.shared.write(2, arrays(0))
    assert store.shared.has(2)
    assert store.shared.lacking({0, 1, 2, 3, 4}) == [4]
    for task in (3, 4):
        with pytest.raises(CorruptMask):
            store.shared.read(task)


def test_a_store_without_shared_arrays_has_none(tmp_path):
    create_store(tmp_path, replace(CONTENT, shared=SharedSpec()))
    store = MaskStore.open(tmp_path)
    assert not {"shared", "after_task"} & store.attributes.keys()
    assert not (tmp_path / "masks.zarr" / "shared").exists()
    assert not store.shared.keeps(2)
    assert store.shared.lacking({2, 4}) == []


@pytest.mark.parametrize("damage", ["cut", "flip", "lose"])
def test_damage_is_found_and_removed(damage, store, tmp_path):
    store.shared.write(2, arrays(0))
    chunk = tmp_path / "masks.zarr" / "shared" / "layer1" / "c" / "0" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[5] ^= 1
    if damage == "lose":
        chunk.unlink()
    else:
        chunk.write_bytes(content if damage == "flip" else content[:-6])
    store = MaskStore.open(tmp_path)
    assert not store.shared.has(2)
    with pytest.raises(CorruptMask, match="shared/layer1/c/0/0/0"):
        store.shared.read(2)
    assert store.shared.damaged({0, 1}) == []  # no log names task 2
    assert [path for path, _ in store.shared.damaged({2})] == [chunk]
    store.shared.remove({chunk})
    assert not chunk.exists()
    store.shared.write(2, arrays(0))
    assert store.shared.damaged({2}) == []


def test_another_description_of_the_arrays_is_refused(store, tmp_path):
    check_store(tmp_path, CONTENT)
    other = replace(CONTENT, shared=replace(SPEC, after_task=(1, 4)))
    with pytest.raises(UserError, match=r"must have after_task\[0\] 1, got 2"):
        check_store(tmp_path, other)
    metadata = tmp_path / "masks.zarr" / "shared" / "layer2" / "zarr.json"
    content = json.loads(metadata.read_text())
    metadata.write_text(json.dumps({**content, "shape": [2, 4, 4]}))
    with pytest.raises(UserError, match=r"shared/layer2/zarr\.json must have shape"):
        check_store(tmp_path, CONTENT)
    metadata.write_text("{")
    with pytest.raises(UserError, match=r"shared/layer2/zarr\.json must be"):
        check_store(tmp_path, CONTENT)


def test_foreign_shared_arrays_are_refused(store, tmp_path: Path):
    (tmp_path / "masks.zarr" / "shared" / "layer9").mkdir()
    with pytest.raises(UserError, match="must have the arrays of this run only, got layer9"):
        check_store(tmp_path, CONTENT)
