import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.schema import Config, EvaluateConfig, TrainConfig
from harness.data.catalogue import load_dataset
from harness.errors import UserError
from harness.run.directory import open_trained, verify_run
from harness.storage import store as store_module
from harness.storage.attributes import decoding
from harness.storage.chunks import ChunkFiles, CorruptMask
from harness.storage.content import StoreContent
from harness.storage.create import create_store
from harness.storage.lock import lock_holder, run_lock
from harness.storage.repair import Damage
from harness.storage.store import MaskStore
from harness.tables.files import create_table_file, read_table_file, write_table
from harness.tables.schemas import TASKS
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.mlp import MLP
from supsup_core.states.layout import TaskState

SMALL = layout_of(MLP("t", (16, 8, 4)), Threshold())
# Chunks of the real size, 64 rows of 39,488 bytes. A few tasks lie in more than one chunk.
LENET = layout_of(MLP("lenet_300_100", (784, 300, 100, 500)), Threshold())
KEEP = {"role": "keep", "coefficient": 1.0}
CHUNK = "masks.zarr/masks/c/{}/0"


def weights_of(layout):
    return {tensor.source: np.full(tensor.shape, 0.5, np.float32) for tensor in layout.tensors}


def inputs_of(capacity):
    rng = np.random.default_rng(0)
    return {"permutation": np.stack([rng.permutation(16) for _ in range(capacity)]).astype("u2")}


def content_of(layout=SMALL, capacity=10, **attributes):
    return StoreContent(
        layout=layout,
        weights=weights_of(layout),
        inputs=inputs_of(10),
        capacity=capacity,
        attributes={"network": "t", "activation": "relu", "run_id": "r", **attributes},
    )


def create(run_dir, *arguments, **options):
    create_store(run_dir, content_of(*arguments, **options))
    return MaskStore.open(run_dir)


def task_table(task_ids):
    row = {
        "method": "scores",
        "accuracy": 0.9,
        "loss": 0.1,
        "steps": 10,
        "train_seconds": 1.0,
        "density": 0.5,
        "mask_bytes": 128,
        "row_crc32c": 0,
        "worker": "w",
        "device": "cpu",
        "finished_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return pa.Table.from_pylist([{"task_id": i, **row} for i in task_ids], schema=TASKS)


def rows_of(layout, task_ids):
    """Return packed rows of random states. Each task has a different row."""
    states = [
        TaskState(
            tuple(np.random.default_rng(i).random(plane.shape) < 0.5 for plane in layout.planes)
        )
        for i in task_ids
    ]
    return layout.pack(states)


def commit(store, unit, task_ids):
    rows = rows_of(SMALL if store.row_bytes == SMALL.row_bytes else LENET, task_ids)
    store.commit(unit, task_table(task_ids), rows)
    return rows


def read_all(store):
    table = store.tasks()
    return store.read(table["task_id"].to_pylist(), table["row_crc32c"].to_pylist())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def flip(path, place, bit=1):
    with path.open("r+b") as file:
        file.seek(place, os.SEEK_END if place < 0 else os.SEEK_SET)
        where, byte = file.tell(), file.read(1)[0]
        file.seek(where)
        file.write(bytes([byte ^ bit]))


def content(run_dir):
    return {
        str(path.relative_to(run_dir)): path.read_bytes()
        for path in run_dir.rglob("*")
        if path.is_file()
    }


# --- layout ---------------------------------------------------------------------------


def test_open_gives_back_what_create_was_given(tmp_path):
    create(tmp_path, seed=3)
    store = MaskStore.open(tmp_path)
    assert store.row_bytes == SMALL.row_bytes
    assert store.capacity == 10
    assert store.attributes["seed"] == 3
    assert store.tasks().equals(TASKS.empty_table(), check_metadata=True)
    assert store.verify() == []


def test_zarr_and_numpy_alone_can_evaluate_a_mask(tmp_path):
    store = create(tmp_path)
    rows = commit(store, "u", [4])
    expected = SMALL.unpack(rows)

    group = zarr.open_group(tmp_path / "masks.zarr", mode="r")
    assert dict(group.attrs) == {
        "format_version": 3,
        "network": "t",
        "activation": "relu",
        "run_id": "r",
        "tensors": [
            {"name": "layer1", "source": "layer1", "shape": [8, 16], "over": "weights"},
            {"name": "layer2", "source": "layer2", "shape": [4, 8], "over": "weights"},
        ],
        "planes": [
            {**KEEP, "tensor": "layer1", "byte_offset": 0, "num_bits": 128},
            {**KEEP, "tensor": "layer2", "byte_offset": 64, "num_bits": 32},
        ],
        "floats": [],
        "decode": decoding(SMALL),
        "bit_order": "little",
        "row_bytes": 128,
    }
    row = group["masks"][4]
    (state,) = expected
    attributes = group.attrs
    for tensor, plane, mask in zip(
        attributes["tensors"], attributes["planes"], state.planes, strict=True
    ):
        first = plane["byte_offset"]
        bits = np.unpackbits(row[first:], bitorder="little")[: plane["num_bits"]]
        assert (bits.reshape(tensor["shape"]) == mask).all()
        weight = group["weights"][tensor["source"]]
        assert weight.dtype == np.float32
        assert (weight[...] == 0.5).all()
    assert group["inputs/permutation"].dtype == np.uint16
    assert (group["inputs/permutation"][...] == inputs_of(10)["permutation"]).all()
    assert (group["masks"][5] == 255).all()


def test_chunks_of_lenet_hold_64_rows_and_are_not_compressed(tmp_path):
    create(tmp_path, LENET, capacity=130)
    metadata = json.loads((tmp_path / "masks.zarr/masks/zarr.json").read_text())
    assert LENET.row_bytes == 39_488
    assert metadata["shape"] == [130, 39_488]
    assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == [64, 39_488]
    assert metadata["codecs"] == [{"name": "bytes"}, {"name": "crc32c"}]
    assert metadata["fill_value"] == 255
    assert metadata["data_type"] == "uint8"
    for path in tmp_path.rglob("zarr.json"):
        assert "consolidated_metadata" not in json.loads(path.read_text())


def test_a_crash_while_creating_leaves_no_store(tmp_path, monkeypatch):
    def crash(self, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            create(tmp_path)
    with pytest.raises(UserError, match=r"must be the directory of a run, got no masks\.zarr"):
        MaskStore.open(tmp_path)
    create(tmp_path)
    assert names(tmp_path) == ["log", "masks.zarr"]


def test_create_never_touches_a_run_that_is_there(tmp_path):
    store = create(tmp_path)
    commit(store, "u", [1])
    before = content(tmp_path)
    with pytest.raises(FileExistsError):
        create(tmp_path)
    assert content(tmp_path) == before
    (tmp_path / "masks.zarr").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"log of a run but not its masks\.zarr"):
        create(tmp_path)


def test_create_checks_its_arguments(tmp_path):
    with pytest.raises(ValueError, match="capacity must be >= 1, got 0"):
        create(tmp_path, capacity=0)
    with pytest.raises(ValueError, match="row_bytes"):
        create(tmp_path, row_bytes=3)


def edit(path, change):
    """Apply `change` to the metadata file of a Zarr group or array."""
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


@pytest.mark.parametrize("version", [1, 99, None])
def test_an_unknown_format_is_refused_in_one_line(tmp_path, version):
    create(tmp_path)
    edit(
        tmp_path / "masks.zarr/zarr.json",
        lambda metadata: metadata["attributes"].update(format_version=version),
    )
    said = f"must have format_version 3, got {version}: choose another run_dir"
    with pytest.raises(UserError, match=said) as caught:
        MaskStore.open(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("run_id", [None, 7])
def test_a_store_without_the_identity_of_its_run_is_refused_in_one_line(tmp_path, run_id):
    create(tmp_path)
    edit(
        tmp_path / "masks.zarr/zarr.json",
        lambda metadata: metadata["attributes"].update(run_id=run_id),
    )
    with pytest.raises(UserError, match=r"must have an attribute run_id, .*: restore the file$"):
        MaskStore.open(tmp_path)


@pytest.mark.parametrize("row_bytes", [None, "128", 0, [128]])
def test_a_store_that_does_not_say_how_long_a_row_is_is_refused_in_one_line(tmp_path, row_bytes):
    create(tmp_path)
    edit(
        tmp_path / "masks.zarr/zarr.json",
        lambda metadata: metadata["attributes"].update(row_bytes=row_bytes),
    )
    with pytest.raises(UserError, match="must have an attribute row_bytes, ") as caught:
        MaskStore.open(tmp_path, read_only=True)
    assert "\n" not in str(caught.value)


def test_what_is_no_store_is_refused_in_one_line(tmp_path):
    create(tmp_path)
    (tmp_path / "masks.zarr/zarr.json").write_text("{")
    with pytest.raises(UserError, match="must be a Zarr group with an array masks"):
        MaskStore.open(tmp_path)


def test_open_for_writing_removes_what_a_crashed_writer_left(tmp_path):
    store = create(tmp_path)
    commit(store, "u", [1])
    before = content(tmp_path)
    zarrs = f"weights/layer1/c/0/0.{'ab' * 16}.partial"
    left = [".zarr.json.1.partial", "masks/c/0/.0.1.partial", zarrs]
    for path in [*(tmp_path / "masks.zarr" / name for name in left), tmp_path / "log/.u.1.partial"]:
        path.write_bytes(b"half")
    MaskStore.open(tmp_path, read_only=True)
    assert len(content(tmp_path)) == len(before) + 4
    MaskStore.open(tmp_path)
    assert content(tmp_path) == before


# --- commit and read ------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_masks_come_back_as_they_were(data):
    task_ids = data.draw(st.lists(st.integers(0, 9), min_size=1, unique=True))
    cut = data.draw(st.integers(0, len(task_ids)))
    seed = data.draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    states = [
        TaskState(tuple(rng.random(plane.shape) < 0.5 for plane in SMALL.planes)) for _ in task_ids
    ]
    with TemporaryDirectory() as folder:
        store = create(Path(folder))
        rows = SMALL.pack(states)
        store.commit("a", task_table(task_ids[:cut]), rows[:cut])
        store.commit("b", task_table(task_ids[cut:]), rows[cut:])

        again = MaskStore.open(Path(folder))
        table = again.tasks()
        assert table["task_id"].to_pylist() == sorted(task_ids)
        crcs = {row["task_id"]: row["row_crc32c"] for row in table.to_pylist()}
        read = again.read(task_ids, [crcs[i] for i in task_ids])
        for got, state in zip(SMALL.unpack(read), states, strict=True):
            pairs = zip(got.planes, state.planes, strict=True)
            assert all((one == other).all() for one, other in pairs)
        assert again.verify() == []


def test_a_unit_may_lie_in_several_chunks(tmp_path):
    store = create(tmp_path, LENET, capacity=130)
    first = commit(store, "a", [129, 63, 64])
    second = commit(store, "b", [0])
    assert (zarr.open_group(tmp_path / "masks.zarr", mode="r")["masks"][63:65] == first[1:]).all()
    assert (read_all(store) == np.stack([second[0], first[1], first[2], first[0]])).all()
    assert store.verify() == []


def test_the_log_says_everything_but_the_checksum_as_it_was_given(tmp_path):
    store = create(tmp_path)
    commit(store, "u", [2, 1])
    table = read_table_file(tmp_path / "log/u.parquet", TASKS)
    assert table.drop_columns("row_crc32c").equals(task_table([2, 1]).drop_columns("row_crc32c"))
    assert 0 not in table["row_crc32c"].to_pylist()
    rows = rows_of(SMALL, [3])
    store.commit("v", task_table([3]).drop_columns("row_crc32c"), rows)
    assert store.tasks()["task_id"].to_pylist() == [1, 2, 3]


def test_a_crash_between_chunk_and_log_commits_nothing(tmp_path, monkeypatch):
    store = create(tmp_path)
    commit(store, "a", [1])

    def crash(table, path, run_id):
        assert (tmp_path / CHUNK.format(0)).exists()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "create_table_file", crash)
        with pytest.raises(OSError, match="No space"):
            commit(store, "b", [2, 3])
    assert store.tasks()["task_id"].to_pylist() == [1]
    assert MaskStore.open(tmp_path).verify() == []
    commit(store, "b", [2, 3])
    assert store.tasks()["task_id"].to_pylist() == [1, 2, 3]
    assert (read_all(store) == rows_of(SMALL, [1, 2, 3])).all()


def test_a_full_disk_changes_nothing(tmp_path, monkeypatch):
    store = create(tmp_path)
    commit(store, "a", [1])
    before = content(tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            commit(store, "b", [2])
    assert content(tmp_path) == before
    commit(store, "b", [2])
    assert store.tasks()["task_id"].to_pylist() == [1, 2]


def test_rows_are_on_disk_before_they_replace_a_chunk_and_before_the_log(tmp_path, monkeypatch):
    store = create(tmp_path)
    events = []
    fsync, replace, link = os.fsync, Path.replace, Path.hardlink_to
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(
        Path, "replace", lambda *paths: (events.append("chunk"), replace(*paths))[1]
    )
    monkeypatch.setattr(Path, "hardlink_to", lambda *paths: (events.append("log"), link(*paths))[1])
    commit(store, "u", [1])
    # After the chunk: its folder, `c` and `masks`. Then the log file's content, and its folder.
    assert events == ["fsync", "chunk", *3 * ["fsync"], "fsync", "log", "fsync"]


def test_commit_refuses_what_cannot_be_a_mask_of_this_run(tmp_path):
    store = create(tmp_path)
    commit(store, "a", [1, 2])
    before = content(tmp_path)
    for task_ids, message in [
        ([10], r"task_id must be >= 0 and < capacity 10, got \[10\]"),
        ([-1], r"got \[-1\]"),
        ([3, 3], "each task once"),
        ([3, 2], r"tasks \[2\] are committed already"),
    ]:
        for writer in (store, MaskStore.open(tmp_path)):
            with pytest.raises(ValueError, match=message):
                writer.commit("b", task_table(task_ids), rows_of(SMALL, [7] * len(task_ids)))
    rows = rows_of(SMALL, [3])
    with pytest.raises(ValueError, match="guard byte"):
        store.commit("b", task_table([3]), np.full_like(rows, 255))
    with pytest.raises(ValueError, match="rows must have shape"):
        store.commit("b", task_table([3]), rows[:, 1:])
    with pytest.raises(ValueError, match="dtype uint8"):
        store.commit("b", task_table([3]), rows.astype(np.int64))
    with pytest.raises(ValueError, match="must have the columns"):
        store.commit("b", task_table([3]).drop_columns("loss"), rows)
    for unit in ("", ".b", "../b", "b/c"):
        with pytest.raises(ValueError, match="visible file"):
            store.commit(unit, task_table([3]), rows)
    assert content(tmp_path) == before


def test_read_refuses_a_row_with_another_checksum(tmp_path):
    store = create(tmp_path)
    commit(store, "u", [1, 2])
    crcs = store.tasks()["row_crc32c"].to_numpy()
    store.read([2, 1], crcs[::-1])
    with pytest.raises(CorruptMask, match=r"task 1: its mask in .*masks/c/0/0 does not match"):
        store.read([1], [crcs[1]])
    with pytest.raises(CorruptMask, match="task 5"):  # task 5 was never written
        store.read([5], [crcs[0]])
    with pytest.raises(ValueError, match="capacity"):
        store.read([10], [crcs[0]])
    with pytest.raises(ValueError, match="crcs must have shape"):
        store.read([1, 2], crcs[:1])
    (tmp_path / CHUNK.format(0)).unlink()
    with pytest.raises(CorruptMask, match=r"tasks \[1, 2\]: .* is missing"):
        store.read([1, 2], crcs)


def test_commit_does_not_build_on_a_damaged_chunk(tmp_path):
    store = create(tmp_path)
    commit(store, "a", [1])
    flip(tmp_path / CHUNK.format(0), 130)
    before = content(tmp_path)
    with pytest.raises(CorruptMask, match="does not match its checksum"):
        commit(store, "b", [2])
    assert content(tmp_path) == before


# --- verify and repair ----------------------------------------------------------------

CAPACITY = 100  # chunk 0: tasks 0-63, chunk 1: 64-99
UNITS = {"a": [0, 1, 2], "b": [3, 4], "c": [62, 63, 64, 65], "d": [99]}
SIZE = 64 * LENET.row_bytes + 4


@pytest.fixture
def store(tmp_path):
    store = create(tmp_path, LENET, CAPACITY)
    for unit, task_ids in UNITS.items():
        commit(store, unit, task_ids)
    return store


def check_repair(store, run_dir, damage, lost):
    """Repair the store, check that only the lost tasks are gone, and commit these tasks again."""
    kept = [i for task_ids in UNITS.values() for i in task_ids if i not in lost]
    log = store.tasks().to_pylist()

    store.repair(damage)

    again = MaskStore.open(run_dir)
    assert again.verify() == []
    assert again.tasks().to_pylist() == [row for row in log if row["task_id"] in kept]
    assert (read_all(again) == rows_of(LENET, kept)).all()
    masks = zarr.open_group(run_dir / "masks.zarr", mode="r")["masks"][...]
    assert (masks[list(lost)] == 255).all()
    assert ((masks != 255).any(axis=1).nonzero()[0] == kept).all()
    for writer, tasks in ((again, lost[:1]), (store, lost[1:])):
        for i in tasks:
            commit(writer, f"again{i}", [i])
        writer._committed = None
    assert (read_all(again) == rows_of(LENET, sorted([*kept, *lost]))).all()
    assert again.verify() == []


@pytest.mark.parametrize("offset", [0, 12_345, LENET.row_bytes - 1])
@pytest.mark.parametrize(("chunk", "task_id"), [(0, 3), (0, 63), (1, 64), (1, 99)])
def test_one_flipped_bit_costs_one_mask(store, tmp_path, chunk, task_id, offset):
    flip(tmp_path / CHUNK.format(chunk), (task_id % 64) * LENET.row_bytes + offset)
    damage = store.verify()
    assert damage == [Damage(CHUNK.format(chunk), (task_id,), "does not match its checksum")]
    check_repair(store, tmp_path, damage, (task_id,))


@pytest.mark.parametrize("place", [-1, -4, 10 * LENET.row_bytes + 5])
def test_a_flip_outside_the_masks_costs_none(store, tmp_path, place):
    flip(tmp_path / CHUNK.format(0), place)
    damage = store.verify()
    assert damage == [Damage(CHUNK.format(0), (), "does not match its checksum")]
    check_repair(store, tmp_path, damage, ())


@pytest.mark.parametrize(
    ("size", "lost"),
    [
        (0, (64, 65, 99)),
        (LENET.row_bytes, (65, 99)),
        (2 * LENET.row_bytes - 1, (65, 99)),
        (SIZE - 5, ()),
        (SIZE + 1, ()),
    ],
)
def test_a_chunk_of_another_size_costs_what_cannot_be_proven(store, tmp_path, size, lost):
    path = tmp_path / CHUNK.format(1)
    data = path.read_bytes()
    path.write_bytes((data + b"x")[:size])
    damage = store.verify()
    reason = f"must have {SIZE} bytes, got {size if size < SIZE else 'more'}"
    assert damage == [Damage(CHUNK.format(1), lost, reason)]
    check_repair(store, tmp_path, damage, lost)


def test_a_missing_chunk_costs_its_masks(store, tmp_path):
    (tmp_path / CHUNK.format(1)).unlink()
    damage = store.verify()
    assert damage == [Damage(CHUNK.format(1), (64, 65, 99), "is missing")]
    check_repair(store, tmp_path, damage, (64, 65, 99))


def test_an_old_chunk_does_not_pass_for_the_new_one(store, tmp_path):
    path = tmp_path / CHUNK.format(1)
    old = path.read_bytes()
    commit(store, "e", [70])
    path.write_bytes(old)
    assert store.verify() == [Damage(CHUNK.format(1), (70,), "does not match the log")]


@pytest.mark.parametrize(
    "how", ["empty", "short", "text", "flip", "columns", "range", "other run", "copy"]
)
def test_a_broken_log_file_is_moved_aside(store, tmp_path, how):
    path = tmp_path / "log/c.parquet"
    data = path.read_bytes()
    match how:
        case "empty":
            path.write_bytes(b"")
        case "short":
            path.write_bytes(data[:-1])
        case "text":
            path.write_text("task_id,accuracy\n")
        case "flip":
            flip(path, data.index(b"PAR1") + 40)
        case "columns":
            write_table(task_table([62]).drop_columns("loss"), path, "r")
        case "range":
            write_table(task_table([CAPACITY]), path, "r")
        case "other run":
            write_table(task_table([62]), path, "other")
        case "copy":
            path.write_bytes((tmp_path / "log/d.parquet").read_bytes())
    broken = path.read_bytes()

    damage = store.verify()
    assert damage == [Damage("log/c.parquet", (), "is not a whole Parquet file of this run's log")]
    store.repair(damage)

    assert (tmp_path / "log/c.parquet.broken").read_bytes() == broken
    assert store.verify() == []
    assert store.tasks()["task_id"].to_pylist() == [0, 1, 2, 3, 4, 99]
    commit(store, "c", UNITS["c"])
    assert (read_all(store) == rows_of(LENET, sorted(chain(*UNITS.values())))).all()


def test_a_task_committed_twice_is_forgotten(store, tmp_path):
    other = task_table([4])
    create_table_file(other, tmp_path / "log/e.parquet", "r")
    damage = store.verify()
    assert Damage("log", (4,), "names tasks more than once") in damage
    store.repair(damage)
    assert store.verify() == []
    assert 4 not in store.tasks()["task_id"].to_pylist()
    assert not (tmp_path / "log/e.parquet").exists()
    commit(store, "b", [4])  # b.parquet stays, because it names task 3
    assert names(tmp_path / "log") == [
        "a.parquet",
        "b-2.parquet",
        "b.parquet",
        "c.parquet",
        "d.parquet",
    ]


def test_a_crash_of_repair_between_log_and_chunk_is_repaired(store, tmp_path, monkeypatch):
    flip(tmp_path / CHUNK.format(0), 4 * LENET.row_bytes)
    damage = store.verify()

    def crash(self, chunk, rows):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ChunkFiles, "write", crash)
        with pytest.raises(KeyboardInterrupt):
            store.repair(damage)
    again = MaskStore.open(tmp_path)
    damage = again.verify()
    assert damage == [Damage(CHUNK.format(0), (), "does not match its checksum")]
    again.repair(damage)
    assert again.verify() == []
    assert 4 not in again.tasks()["task_id"].to_pylist()


@pytest.mark.parametrize("name", ["weights/layer2/c/0/0", "inputs/permutation/c/0/0"])
@pytest.mark.parametrize("how", ["flip", "missing", "short"])
def test_a_damaged_fixed_array_is_written_again_if_given(tmp_path, name, how):
    store = create(tmp_path)
    commit(store, "u", [1])
    before = content(tmp_path)
    path = tmp_path / "masks.zarr" / name
    match how:
        case "flip":
            flip(path, 3)
        case "missing":
            path.unlink()
        case "short":
            path.write_bytes(path.read_bytes()[:-9])
    damage = store.verify()
    array = "masks.zarr/" + name.removesuffix("/c/0/0")
    assert damage == [Damage(array, (), "is missing or does not match its checksums")]
    with pytest.raises(UserError, match=f"{array} is damaged"):
        store.repair(damage)
    store.repair(damage, content_of())
    assert store.verify() == []
    assert content(tmp_path) == before


def test_an_input_that_there_must_be_is_missed_and_written_again(tmp_path):
    store = create(tmp_path)
    commit(store, "u", [1])
    before = content(tmp_path)
    shutil.rmtree(tmp_path / "masks.zarr/inputs/permutation")
    assert store.verify() == []  # the store does not list its inputs
    damage = store.verify(["inputs/permutation"])
    assert [found.path for found in damage] == ["masks.zarr/inputs/permutation"]
    store.repair(damage, content_of())
    assert content(tmp_path) == before


# --- the store of a run ---------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def begin(run_dir, digits):
    config = Config(
        data="digits",
        network="mlp",
        network_options={"hidden": [24]},
        outputs=20,
        tasks=4,
        train=TrainConfig("paper", 10, 16, 0.01, 0.9, "none", "float32", 2),
        evaluate=EvaluateConfig(checkpoints=[4]),
    )
    with run_lock(run_dir):
        return open_trained(run_dir, config, digits)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda attributes: attributes.pop("planes"), "must have planes "),
        (
            lambda attributes: attributes["normalisation"].update(mean=[0.5]),
            "must have normalisation.mean[0] ",
        ),
    ],
)
def test_a_run_does_not_go_on_with_an_edited_store(tmp_path, digits, change, said):
    begin(tmp_path, digits)
    begin(tmp_path, digits)
    edit(tmp_path / "masks.zarr/zarr.json", lambda metadata: change(metadata["attributes"]))
    before = content(tmp_path)
    with pytest.raises(UserError) as caught:
        begin(tmp_path, digits)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert content(tmp_path) == before


def test_a_start_removes_what_crashed_writers_left_in_the_run(tmp_path, digits):
    run = begin(tmp_path, digits)
    left = [
        tmp_path / ".config.yaml.1.partial",
        tmp_path / ".provenance.json.1.partial",
        run.folder("evaluations") / ".0004-binary.parquet.1.partial",
    ]
    kept = [tmp_path / "notes.partial", run.folder("evaluations") / "0004-binary.parquet.broken"]
    for path in [*left, *kept]:
        path.write_bytes(b"half")
    begin(tmp_path, digits)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)


# --- lock -----------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from harness.storage.lock import lock_holder, run_lock
with run_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_driver_is_told_who_holds_the_run_and_a_killed_one_frees_it(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(store_module.__file__).parents[2])},
    ) as holder:
        try:
            assert holder.stdout.readline() == "locked\n"
            record = json.loads((tmp_path / "lock").read_text())
            assert record["pid"] == holder.pid
            with pytest.raises(UserError) as caught, run_lock(tmp_path):
                pass
            assert str(caught.value) == (
                f"run directory {tmp_path} is in use by process {holder.pid} on host "
                f"{record['host']} since {record['since']}: "
                "wait for it, stop it, or choose another run_dir"
            )
        finally:
            holder.send_signal(signal.SIGKILL)
        holder.wait()
    with run_lock(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_a_lock_is_free_once_its_block_is_left(tmp_path):
    run_dir = tmp_path / "new"
    for _ in range(2):
        with pytest.raises(KeyError), run_lock(run_dir):
            raise KeyError
    with (
        run_lock(run_dir),
        pytest.raises(UserError, match=f"in use by process {os.getpid()}"),
        run_lock(run_dir),
    ):
        pass


def test_a_holder_that_has_not_signed_is_another_process(tmp_path):
    with run_lock(tmp_path):
        (tmp_path / "lock").write_text("")
        with pytest.raises(UserError, match="in use by another process: "), run_lock(tmp_path):
            pass


@pytest.mark.parametrize("kind", ["link", "loop", "folder", "FIFO"])
def test_a_lock_that_is_no_file_is_refused_and_its_target_stays(tmp_path, kind):
    target, lock = tmp_path / "precious", tmp_path / "run" / "lock"
    target.write_text("precious")
    lock.parent.mkdir()
    match kind:
        case "link":
            lock.symlink_to(target)
        case "loop":
            lock.symlink_to(lock)
        case "folder":
            lock.mkdir()
        case "FIFO":
            os.mkfifo(lock)
    with pytest.raises(UserError, match="lock must be a regular file"), run_lock(lock.parent):
        pass
    with pytest.raises(UserError, match="lock must be a regular file"):
        lock_holder(lock.parent)
    assert target.read_text() == "precious"


@pytest.mark.parametrize(
    "pid", ["Infinity", "1e999", "-1", "0", '"7"', "true", "2.5", str(2**31), "[" * 9_999]
)
def test_a_lock_with_no_process_is_not_signed(tmp_path, pid):
    (tmp_path / "lock").write_text(f'{{"pid": {pid}, "host": "h", "since": "now"}}')
    assert lock_holder(tmp_path) is None
    with run_lock(tmp_path):
        assert lock_holder(tmp_path).pid == os.getpid()


@pytest.mark.parametrize(
    "name", ["evaluations", "log", "masks.zarr", "reservoir", "recovery", "allocation", "failures"]
)
def test_nothing_is_written_through_a_folder_that_is_a_link(tmp_path, digits, name):
    run_dir, outside = tmp_path / "run", tmp_path / "outside"
    begin(run_dir, digits)
    outside.mkdir()
    folder = run_dir / name
    if folder.exists():
        shutil.rmtree(folder)
    folder.symlink_to(outside)
    with pytest.raises(UserError, match=f"{name} must be a folder, got a symbolic link: replace"):
        begin(run_dir, digits)
    assert not list(outside.iterdir())


# --- what is no file ------------------------------------------------------------------

FILES = ["log/unit-000000.parquet", CHUNK.format(0), "masks.zarr/zarr.json"]
FILES += ["masks.zarr/masks/zarr.json", "config.yaml", "provenance.json"]
FIXED = "masks.zarr/weights/layer1/c/0/0"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, kind) for name in FILES for kind in ("loop", "folder", "FIFO")),
        *((FIXED, kind) for kind in ("loop", "FIFO")),  # a folder is repaired with its array
    ],
)
def test_a_start_refuses_what_is_no_file_in_one_line(tmp_path, digits, name, kind):
    run = begin(tmp_path, digits)
    row = np.zeros((1, run.store.row_bytes), np.uint8)
    run.store.commit("unit-000000", task_table([0]), row)
    path = tmp_path / name
    path.unlink()
    match kind:
        case "loop":
            path.symlink_to(path)
        case "folder":
            path.mkdir()
        case "FIFO":
            os.mkfifo(path)
    with pytest.raises(UserError) as refused:
        begin(tmp_path, digits)
    assert "\n" not in str(refused.value)
    assert path.name in str(refused.value) or "masks.zarr must be" in str(refused.value)
    assert path.is_symlink() or path.is_dir() or path.is_fifo()  # nothing was put in its place


def test_a_start_checks_the_values_of_the_store(tmp_path, digits):
    begin(tmp_path, digits)
    zarr.open_array(tmp_path / "masks.zarr/weights/layer1")[0, 0] = 9
    before = content(tmp_path)
    with pytest.raises(UserError, match="weights/layer1 must have the values"):
        begin(tmp_path, digits)
    with pytest.raises(UserError, match="weights/layer1 must have the values"):
        verify_run(tmp_path)
    assert content(tmp_path) == before


def test_a_run_without_masks_goes_on_without_its_log_folder(tmp_path, digits):
    begin(tmp_path, digits)
    (tmp_path / "log").rmdir()
    run = begin(tmp_path, digits)
    row = np.zeros((1, run.store.row_bytes), np.uint8)
    run.store.commit("unit-000000", task_table([0]), row)
    assert verify_run(tmp_path) == []
    shutil.rmtree(tmp_path / "log")
    with pytest.raises(UserError, match="log must be the log of the masks in"):
        begin(tmp_path, digits)


def test_the_number_of_chunks_does_not_limit_a_check(tmp_path):
    store = create(tmp_path, capacity=10**12)
    assert store.verify() == []  # there are 5 * 10^7 chunks


def test_a_store_is_created_beside_a_link_with_the_name_of_an_unfinished_store(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.masks.zarr.partial").symlink_to(tmp_path / "precious")
    assert create(tmp_path / "run").verify() == []
    assert names(tmp_path / "precious") == ["file"]
