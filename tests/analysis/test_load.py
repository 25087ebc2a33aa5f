import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.load import SCHEMA_VERSION, load
from harness import results


def _table(num_tasks: int, version: str = SCHEMA_VERSION) -> pa.Table:
    return pa.table({"num_tasks": [num_tasks]}).replace_schema_metadata({"schema_version": version})


def test_all_files_of_a_table_are_read_and_hidden_ones_are_not(tmp_path):
    folder = tmp_path / "evaluations"
    folder.mkdir()
    for name, k in (("a.parquet", 1), ("b.parquet", 2), (".c.parquet", 3)):
        pq.write_table(_table(k), folder / name)

    assert load(tmp_path, "evaluations")["num_tasks"].to_pylist() == [1, 2]


def test_another_schema_version_is_refused_by_file_and_version(tmp_path):
    (tmp_path / "log").mkdir()
    pq.write_table(_table(1, version="0"), tmp_path / "log" / "old.parquet")

    with pytest.raises(ValueError, match=r"old\.parquet must have schema_version 1, got 0"):
        load(tmp_path, "tasks")


def test_a_table_without_files_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="has the run begun"):
        load(tmp_path, "tasks")


def test_the_schema_version_is_the_one_that_the_harness_writes():
    assert str(results.SCHEMA_VERSION) == SCHEMA_VERSION
