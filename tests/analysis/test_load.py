import json

import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.columns import SCHEMA_VERSIONS, wrong_column
from analysis.load import differences, load, load_runs
from harness.search.table import trials_schema
from harness.tables.files import write_table
from harness.tables.inference import EVALUATIONS
from harness.tables.schemas import SCHEMAS


def _evaluations(num_tasks: int) -> pa.Table:
    values = {"string": "x", "int64": num_tasks, "double": 0.5}
    row = {field.name: values[str(field.type)] for field in EVALUATIONS}
    return pa.Table.from_pylist([row], schema=EVALUATIONS)


def _as_of(version: str, table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata({"schema_version": version, "table": "evaluations"})


def test_all_files_of_a_table_are_read_and_hidden_ones_are_not(tmp_path):
    folder = tmp_path / "evaluations"
    folder.mkdir()
    for name, k in (("a.parquet", 1), ("b.parquet", 2), (".c.parquet", 3)):
        write_table(_evaluations(k), folder / name, "r")

    assert load(tmp_path, "evaluations")["num_tasks"].to_pylist() == [1, 2]


@pytest.mark.parametrize(("table", "version"), [("tasks", "4"), ("evaluations", "3")])
def test_another_schema_version_is_refused_by_file_and_version(tmp_path, table, version):
    folder = tmp_path / {"tasks": "log"}.get(table, table)
    folder.mkdir()
    pq.write_table(_as_of("0", _evaluations(1)), folder / "old.parquet")

    with pytest.raises(
        ValueError, match=rf"old\.parquet must have schema_version {version}, got 0"
    ):
        load(tmp_path, table)


def _changed(change: str) -> pa.Table:
    table = _evaluations(1)
    match change:
        case "missing":
            return table.drop(["rate"])
        case "renamed":
            return table.rename_columns([*table.column_names[:-1], "machine"])
        case "added":
            return table.append_column("new", pa.array([1]))
        case _:
            place = table.schema.get_field_index("steps")
            return table.set_column(place, "steps", table["steps"].cast(pa.float64()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("missing", "rate:double, got tasks_asked:int64"),
        ("renamed", "device:string, got machine:string"),
        ("added", "none, got new:int64"),
        ("type", "steps:int64, got steps:double"),
    ],
)
def test_a_file_with_other_columns_or_types_is_refused(tmp_path, change, said):
    (tmp_path / "evaluations").mkdir()
    metadata = EVALUATIONS.metadata
    path = tmp_path / "evaluations" / "a.parquet"
    pq.write_table(_changed(change).replace_schema_metadata(metadata), path)
    with pytest.raises(
        ValueError, match=rf"a\.parquet must have the column {said}: remove the file"
    ):
        load(tmp_path, "evaluations")


def _store(run, run_id):
    (run / "masks.zarr").mkdir(parents=True)
    attributes = {"attributes": {"run_id": run_id}}
    (run / "masks.zarr" / "zarr.json").write_text(json.dumps(attributes))


@pytest.mark.parametrize(
    ("of_store", "of_files", "wrong"),
    [
        (None, ["a", "b"], "b"),  # a folder with tables alone: the files must agree
        ("a", ["a", "b"], "b"),
        ("b", ["a", "a"], "a"),  # `cp -r other/evaluations .`
    ],
)
def test_files_of_another_run_are_refused_in_one_line(tmp_path, of_store, of_files, wrong):
    (tmp_path / "evaluations").mkdir()
    if of_store:
        _store(tmp_path, of_store)
    for place, run_id in enumerate(of_files):
        write_table(_evaluations(place), tmp_path / "evaluations" / f"{place}.parquet", run_id)
    said = (
        rf"\d\.parquet must belong to the run \w, got a file of the run {wrong}: remove the file$"
    )
    with pytest.raises(ValueError, match=said):
        load(tmp_path, "evaluations")


def test_a_copy_under_another_name_is_refused(tmp_path):
    folder = tmp_path / "evaluations"
    folder.mkdir()
    _store(tmp_path, "r")
    write_table(_evaluations(1), folder / "a.parquet", "r")
    assert len(load(tmp_path, "evaluations")) == 1
    (folder / "b.parquet").write_bytes((folder / "a.parquet").read_bytes())
    said = r"b\.parquet must have its own name in its metadata, got a: remove the copy$"
    with pytest.raises(ValueError, match=said):
        load(tmp_path, "evaluations")


def test_a_file_that_is_no_parquet_file_is_named(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "a.parquet").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"a\.parquet must be a whole Parquet file"):
        load(tmp_path, "tasks")


def test_a_table_without_files_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="got none: check the path"):
        load(tmp_path, "tasks")


def test_the_schema_versions_are_those_that_the_harness_writes():
    written = {
        schema.metadata[b"table"].decode(): schema.metadata[b"schema_version"].decode()
        for schema in (*SCHEMAS.values(), trials_schema({}))
    }
    assert written == SCHEMA_VERSIONS


@pytest.mark.parametrize("table", SCHEMAS)
def test_the_columns_are_those_that_the_harness_writes(table):
    assert wrong_column(table, SCHEMAS[table]) is None


def test_the_trials_of_a_search_may_have_any_searched_keys():
    searched = {"train.steps": pa.int64(), "train.optimizer": pa.string()}
    for schema in (trials_schema({}), trials_schema(searched)):
        assert wrong_column("trials", schema) is None
    first = trials_schema(searched).field(0)
    assert wrong_column("trials", pa.schema([first])) == "status:string, got none"


def test_runs_are_read_together_and_differ_by_key(tmp_path):
    runs = [tmp_path / "a", tmp_path / "b"]
    for run, text in zip(
        runs, ("seed: 0\ntrain: {steps: 1}", "seed: 0\ntrain: {steps: 2}\nnew: 3"), strict=True
    ):
        (run / "evaluations").mkdir(parents=True)
        write_table(_evaluations(4), run / "evaluations" / "a.parquet", "r")
        (run / "config.yaml").write_text(f"{text}\nrun_dir: {run}\n...\n")

    rows = load_runs(runs, "evaluations")

    assert polars.from_arrow(rows)["run"].to_list() == [str(run) for run in runs]
    assert rows.drop(["run"]).equals(pa.concat_tables([load(run, "evaluations") for run in runs]))
    assert differences(runs) == {"new": [None, 3], "train.steps": [1, 2]}
