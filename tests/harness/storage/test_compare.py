"""A store must equal what its run would create now, except for the rows of masks."""

import json
import shutil

import numpy as np
import pytest
import zarr

from harness.errors import UserError
from harness.storage.compare import check_store
from harness.storage.content import StoreContent
from harness.storage.create import create_store
from harness.storage.store import MaskStore
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.mlp import MLP

LAYOUT = layout_of(MLP("t", (16, 8, 4)), Threshold())
GIVEN = {
    "network": "t",
    "run_id": "r",
    "hidden": (8, 4),
    "normalisation": {"mean": 0.1307, "std": 0.3081},
    "versions": {"python": "3.11.9"},
}


def content_of(seed=0, attributes=GIVEN):
    rng = np.random.default_rng(seed)
    permutations = rng.permuted(np.tile(np.arange(16, dtype="u2"), (10, 1)), axis=1)
    return StoreContent(
        layout=LAYOUT,
        weights={t.source: rng.random(t.shape, np.float32) for t in LAYOUT.tensors},
        inputs={"permutations": permutations},
        capacity=10,
        attributes=attributes,
    )


@pytest.fixture
def run(tmp_path):
    create_store(tmp_path, content_of())
    return tmp_path


def files(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_store_fits_what_it_was_made_with_whatever_the_versions(run):
    before = files(run)
    versions = {"python": "3.12.1", "numpy": "2"}
    check_store(run, content_of(attributes={**GIVEN, "versions": versions}))
    assert files(run) == before


def edit(path, change):
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


@pytest.mark.parametrize(
    ("where", "change", "said"),
    [
        (
            "zarr.json",
            lambda metadata: metadata["attributes"].pop("tensors"),
            'must have tensors [{"name": "layer1", "source": "layer1", "shape": [8, 16], "over": '
            '"weights"}, {"name": "layer2", "source": "layer2", "shape": [4, 8], "over": '
            '"weights"}], got none',
        ),
        (
            "zarr.json",
            lambda metadata: metadata["attributes"]["normalisation"].update(mean=0.5),
            "must have normalisation.mean 0.1307, got 0.5",
        ),
        (
            "zarr.json",
            lambda metadata: metadata["attributes"]["planes"][1].update(byte_offset=128),
            "must have planes[1].byte_offset 64, got 128",
        ),
        (
            "zarr.json",
            lambda metadata: metadata["attributes"]["tensors"][0].update(shape=["a", "b"]),
            'must have tensors[0].shape[0] 8, got "a"',
        ),
        (
            "zarr.json",
            lambda metadata: metadata["attributes"].update(row_bytes=10**13),
            f"must have row_bytes 128, got {10**13}",
        ),
        (
            "zarr.json",
            lambda metadata: metadata["attributes"].update(note="mine"),
            'must have note none, got "mine"',
        ),
        (
            "masks/zarr.json",
            lambda metadata: metadata.update(shape=[10**12, 128]),
            f"must have shape[0] 10, got {10**12}",
        ),
        (
            "masks/zarr.json",
            lambda metadata: metadata.update(data_type="int8", fill_value=-1),
            'must have data_type "uint8", got "int8"',
        ),
        (
            "weights/layer1/zarr.json",
            lambda metadata: metadata.update(data_type="int32", fill_value=0),
            'must have data_type "float32", got "int32"',
        ),
        (
            "inputs/permutations/zarr.json",
            lambda metadata: metadata.update(shape=[9, 16]),
            "must have shape[0] 10, got 9",
        ),
        (
            "weights/layer2/zarr.json",
            lambda metadata: metadata["attributes"].update(note="mine"),
            'must have attributes.note none, got "mine"',
        ),
    ],
)
def test_edited_metadata_are_refused_with_the_difference_and_what_to_do(run, where, change, said):
    edit(run / "masks.zarr" / where, change)
    with pytest.raises(UserError) as refused:
        check_store(run, content_of())
    assert str(refused.value) == (
        f"{run}/masks.zarr/{where} {said}: restore masks.zarr/{where} and config.yaml, "
        "or choose another run_dir"
    )


@pytest.mark.parametrize("group", ["weights", "inputs"])
def test_arrays_of_another_run_are_refused(run, group, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    create_store(other, content_of(seed=1))
    shutil.rmtree(run / "masks.zarr" / group)
    shutil.copytree(other / "masks.zarr" / group, run / "masks.zarr" / group)
    assert MaskStore.open(run).verify() == []  # checksums cannot tell
    name = {"weights": "weights/layer1", "inputs": "inputs/permutations"}[group]
    with pytest.raises(UserError, match=f"{name} must have the values that the config") as refused:
        check_store(run, content_of())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("task", [0, 9])
def test_one_changed_number_at_the_ends_of_the_inputs_is_refused(run, task):
    zarr.open_array(run / "masks.zarr/inputs/permutations")[task, 3] = 77
    with pytest.raises(UserError, match="inputs/permutations must have the values"):
        check_store(run, content_of())


def test_one_changed_weight_is_refused(run):
    zarr.open_array(run / "masks.zarr/weights/layer2")[3, 7] = 0.5
    with pytest.raises(UserError, match="weights/layer2 must have the values"):
        check_store(run, content_of())


def test_an_array_that_the_run_would_not_create_is_refused(run):
    shutil.copytree(run / "masks.zarr/weights/layer1", run / "masks.zarr/weights/mine")
    with pytest.raises(UserError, match="must have the arrays of this run only, got mine"):
        check_store(run, content_of())


@pytest.mark.parametrize("name", ["weights/layer1/zarr.json", "inputs/permutations/c/0/0"])
@pytest.mark.parametrize("data", [None, b"{", b"[" * 100_000])
def test_what_cannot_be_read_is_left_to_verify(run, name, data):
    path = run / "masks.zarr" / name
    path.unlink() if data is None else path.write_bytes(data)
    check_store(run, content_of())
    store = MaskStore.open(run)
    fixed = [*(f"weights/{t.source}" for t in LAYOUT.tensors), "inputs/permutations"]
    damage = store.verify(fixed)
    assert [one.path for one in damage] == ["masks.zarr/" + "/".join(name.split("/")[:2])]
    store.repair(damage, content_of())
    check_store(run, content_of())
    assert store.verify(fixed) == []
