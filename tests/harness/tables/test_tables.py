import errno
import os
import stat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.errors import UserError
from harness.places.durable import remove_partial_files, write_durably
from harness.tables.files import create_table_file, read_table_file, read_tables, write_table
from harness.tables.inference import EVALUATIONS, QUERIES
from harness.tables.reservoirs import RECOVERY, RESERVOIR
from harness.tables.schemas import TASKS


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def evaluations(*task_ids, objective="entropy"):
    values = {"string": "x", "int64": 1, "double": 0.5}
    row = {field.name: values[str(field.type)] for field in EVALUATIONS}
    rows = [{**row, "task_id": i, "objective": objective} for i in task_ids]
    return pa.Table.from_pylist(rows, schema=EVALUATIONS)


RUN = "0123456789abcdef"  # the identity of a run
OPTIONS = ("log_base", "steps", "rate")
NULLABLE = (
    *("objective", "agreement", "share", "capacity", "batches"),
    *("base_accuracy", "free_share", "entropy", "runner_up", "margin", "picture"),
)


@pytest.mark.parametrize(
    ("schema", "name", "version"),
    [
        (TASKS, b"tasks", b"4"),
        (EVALUATIONS, b"evaluations", b"3"),
        (QUERIES, b"queries", b"1"),
        (RESERVOIR, b"reservoir", b"2"),
        (RECOVERY, b"recovery", b"1"),
    ],
)
def test_schemas_describe_themselves(schema, name, version):
    assert schema.metadata == {b"schema_version": version, b"table": name}
    for field in schema:
        assert set(field.metadata) == {b"unit", b"description"}
        assert field.metadata[b"description"]
        if field.name in NULLABLE:
            assert field.nullable
        elif field.nullable:  # settings that only some algorithms read
            assert name in (b"evaluations", b"queries")
            assert field.name in OPTIONS


def test_columns_are_those_of_the_contract():
    assert " ".join(TASKS.names) == (
        "task_id method accuracy loss steps train_seconds density base_accuracy free_share "
        "mask_bytes row_crc32c worker device finished_at"
    )
    assert " ".join(EVALUATIONS.names) == (
        "num_tasks num_distractors task_id algorithm objective num_images batch_size log_base "
        "steps rate tasks_asked batches num_batches task_accuracy accuracy_gg accuracy_gns "
        "accuracy_gnu seconds_per_inference num_gradients bits_read_fraction agreement device"
    )
    assert " ".join(RESERVOIR.names) == (
        "rule dim num_blocks block num_tasks cue share most_steps batch_size batches num_cues "
        "bit_accuracy exact_recall other spurious "
        "unsettled steps accuracy accuracy_gg capacity reservoir_bytes store_bytes seconds "
        "store_seconds device"
    )
    assert TASKS.field("row_crc32c").type == pa.uint32()
    assert TASKS.field("finished_at").type == pa.timestamp("us", tz="UTC")


def test_a_row_of_queries_takes_few_bytes(tmp_path):
    rng = np.random.default_rng(0)
    plain = {"string": "x", "double": 0.5, "bool": True, "binary": None}
    columns = {
        column.name: [plain[kind]] * 2000
        if (kind := str(column.type)) in plain
        else rng.gamma(5.0, 1.0, 2000).astype(np.float32)
        if kind == "float"
        else rng.integers(0, 2500, 2000)
        if column.name in ("image", "inferred", "runner_up")
        else [7] * 2000
        for column in QUERIES
    }
    table, path = pa.table(columns, schema=QUERIES), tmp_path / "a.parquet"
    sizes = []
    for num_rows in (0, 2000):
        write_table(table.slice(0, num_rows), path, "r")
        sizes.append(path.stat().st_size)
    assert read_table_file(path, QUERIES).equals(table)
    assert (sizes[1] - sizes[0]) / 2000 < 10  # the margin takes 4, each random task 1.5


def test_tables_come_back_in_the_order_of_file_names(tmp_path):
    write_table(evaluations(3, objective=None), tmp_path / "b.parquet", RUN)
    write_table(evaluations(1, 2), tmp_path / "a.parquet", RUN)
    (tmp_path / ".c.parquet.1.partial").write_bytes(b"half")
    (tmp_path / ".hidden.parquet").write_bytes(b"half")
    (tmp_path / "notes.txt").write_bytes(b"")

    table = read_tables(tmp_path, EVALUATIONS)

    assert table.equals(
        pa.concat_tables([evaluations(1, 2), evaluations(3, objective=None)]), check_metadata=True
    )


def test_no_files_are_an_empty_table(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        assert read_tables(folder, TASKS).equals(TASKS.empty_table(), check_metadata=True)


def test_write_replaces_and_create_does_not(tmp_path):
    path = tmp_path / "a.parquet"
    write_table(evaluations(1), path, RUN)
    write_table(evaluations(2), path, RUN)
    with pytest.raises(FileExistsError):
        create_table_file(evaluations(3), path, RUN)
    create_table_file(evaluations(4), tmp_path / "b.parquet", RUN)

    assert read_tables(tmp_path, EVALUATIONS)["task_id"].to_pylist() == [2, 4]
    assert names(tmp_path) == ["a.parquet", "b.parquet"]


@pytest.mark.parametrize("write", [write_table, create_table_file])
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, write):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(evaluations(1), tmp_path / "a.parquet", RUN)
    assert names(tmp_path) == []


def test_a_file_not_known_to_be_on_disk_is_not_created(tmp_path, monkeypatch):
    def fail(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("harness.places.durable.fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        create_table_file(evaluations(1), tmp_path / "a.parquet", RUN)
    assert names(tmp_path) == []


def test_content_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path, events = tmp_path / "a.parquet", []
    fsync = os.fsync

    def record(descriptor):
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        events.append((kind, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    create_table_file(evaluations(1), path, RUN)
    assert events == [("file", False), ("folder", True)]


def refuse_links(monkeypatch, code):
    def refuse(path, target):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "hardlink_to", refuse)


NO_LINKS = [errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS]


@pytest.mark.parametrize("code", NO_LINKS)
def test_a_file_system_without_hard_links_creates_and_never_replaces(tmp_path, monkeypatch, code):
    refuse_links(monkeypatch, code)
    path = tmp_path / "a.parquet"
    create_table_file(evaluations(1), path, RUN)
    with pytest.raises(FileExistsError):
        create_table_file(evaluations(2), path, RUN)
    assert read_table_file(path, EVALUATIONS).equals(evaluations(1))
    assert names(tmp_path) == ["a.parquet"]


def test_without_hard_links_too_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    refuse_links(monkeypatch, errno.EPERM)
    path, fsync = tmp_path / "a.parquet", os.fsync

    def fill_up(descriptor):
        if path.exists():
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fill_up)
    with pytest.raises(OSError, match="No space"):
        create_table_file(evaluations(1), path, RUN)
    assert names(tmp_path) == []


def test_without_hard_links_too_content_is_on_disk_before_the_caller_goes_on(tmp_path, monkeypatch):
    refuse_links(monkeypatch, errno.EPERM)
    path, events = tmp_path / "a.parquet", []
    fsync = os.fsync

    def record(descriptor):
        status = os.fstat(descriptor)
        is_folder = stat.S_ISDIR(status.st_mode)
        events.append("folder" if is_folder else "file" if not path.exists() else "final")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    create_table_file(evaluations(1), path, RUN)
    assert events == ["file", "final", "folder"]


def test_another_failure_to_link_is_an_error(tmp_path, monkeypatch):
    refuse_links(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        create_table_file(evaluations(1), tmp_path / "a.parquet", RUN)
    assert names(tmp_path) == []


def test_partial_files_are_removed_from_one_folder_and_nothing_else_is(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / ".masks.zarr.partial").mkdir()
    for name in (".a.parquet.1.partial", "a.partial", "below/.b.1.partial"):
        (tmp_path / name).write_bytes(b"half")
    remove_partial_files(tmp_path)
    remove_partial_files(tmp_path / "missing")
    assert names(tmp_path) == [".masks.zarr.partial", "a.partial", "below"]
    assert names(tmp_path / "below") == [".b.1.partial"]
    remove_partial_files(tmp_path, below=True)
    assert names(tmp_path / "below") == []


def test_only_own_partial_files_are_removed_and_never_through_a_link(tmp_path):
    own = [".a.1.partial", f"0.{'ab' * 16}.partial"]
    others = [".a.partial", "a.1.partial", "0.ab.partial", ".a.1.partial.b", ".a.x.partial"]
    for folder in ("elsewhere", "log"):
        (tmp_path / folder).mkdir()
        for name in (*own, *others):
            (tmp_path / folder / name).write_bytes(b"half")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "log" / "below").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "log" / ".b.1.partial").symlink_to(tmp_path / "elsewhere" / own[0])
    for folder in ("link", "log"):
        remove_partial_files(tmp_path / folder, below=True)
    assert names(tmp_path / "elsewhere") == sorted([*own, *others])
    assert names(tmp_path / "log") == sorted([*others, "below"])


def test_a_write_does_not_follow_a_link_with_the_name_of_its_partial_file(tmp_path):
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / f".a.{os.getpid()}.partial").symlink_to(tmp_path / "precious")
    write_durably(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a", "precious"]
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_file_names_itself_and_its_run(tmp_path):
    for write in (write_table, create_table_file):
        path = tmp_path / f"{write.__name__}.parquet"
        write(evaluations(1), path, RUN)
        metadata = pq.read_schema(path).metadata
        assert metadata[b"run_id"].decode() == RUN
        assert metadata[b"name"].decode() == write.__name__
        # Rows of several files still have one schema.
        assert read_table_file(path, EVALUATIONS).schema.equals(EVALUATIONS, check_metadata=True)


def test_a_file_of_another_run_and_a_copy_are_refused(tmp_path):
    path, copy = tmp_path / "a.parquet", tmp_path / "b.parquet"
    write_table(evaluations(1), path, RUN)
    assert len(read_tables(tmp_path, EVALUATIONS, run_id=RUN)) == 1
    with pytest.raises(ValueError, match=rf"a\.parquet must belong to the run x, got .* {RUN}"):
        read_tables(tmp_path, EVALUATIONS, run_id="x")
    copy.write_bytes(path.read_bytes())
    for run_id in (RUN, None):
        with pytest.raises(ValueError, match=r"b\.parquet must have its own name .* copy of a$"):
            read_tables(tmp_path, EVALUATIONS, run_id=run_id)


@pytest.mark.parametrize("version", ["2", "7"])
def test_a_whole_file_of_another_version_is_refused_in_one_line_and_is_no_damage(tmp_path, version):
    path = tmp_path / "a.parquet"
    metadata = EVALUATIONS.metadata | {b"schema_version": version.encode()}
    # The other version has other columns, and the refusal names the version all the same.
    pq.write_table(evaluations(1).drop(["rate"]).replace_schema_metadata(metadata), path)
    for read in (read_table_file, lambda file, schema: read_tables(file.parent, schema)):
        with pytest.raises(UserError) as refused:
            read(path, EVALUATIONS)
        assert str(refused.value) == (
            f"{path} must have schema_version 3, got {version}: choose another run_dir, or use the "
            "program version that wrote this file"
        )


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (None, "must have table evaluations, got none"),
        ({"table": "evaluations"}, "must have schema_version 3, got none"),
        ({"table": "evaluations", "schema_version": "x"}, "must have schema_version 3, got x"),
    ],
)
def test_a_file_without_a_version_is_damaged(tmp_path, metadata, said):
    path = tmp_path / "a.parquet"
    pq.write_table(evaluations(1).replace_schema_metadata(metadata), path)
    with pytest.raises(ValueError, match=rf"a\.parquet {said}"):
        read_table_file(path, EVALUATIONS)


def test_other_columns_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(evaluations(1).drop(["agreement"]), path)
    with pytest.raises(ValueError, match=r"a\.parquet must have the columns num_tasks"):
        read_table_file(path, EVALUATIONS)


def test_a_table_without_version_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="schema_version"):
        write_table(evaluations(1).replace_schema_metadata(None), tmp_path / "a.parquet", RUN)


def test_another_table_is_refused(tmp_path):
    write_table(evaluations(1), tmp_path / "a.parquet", RUN)
    with pytest.raises(ValueError, match=r"a\.parquet must have table tasks, got evaluations"):
        read_tables(tmp_path, TASKS)


def test_no_damage_to_a_file_goes_unnoticed_or_changes_values(tmp_path):
    path = tmp_path / "a.parquet"
    write_table(evaluations(1), path, RUN)
    data = path.read_bytes()
    for end in range(0, len(data), 97):
        path.write_bytes(data[:end])
        with pytest.raises(ValueError, match="not a whole Parquet file"):
            read_table_file(path, EVALUATIONS)
    for place in range(0, len(data), 41):
        path.write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
        try:
            table = read_table_file(path, EVALUATIONS)
        except (ValueError, UserError):
            continue
        assert table.equals(evaluations(1))
