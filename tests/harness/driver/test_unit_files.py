"""The files of work units: a damaged one is put aside, and what is no file is refused."""

import os

import pyarrow as pa
import pytest

from harness.driver.unit_files import UnitFiles
from harness.errors import UserError
from harness.plan.units import EvaluationUnit
from harness.tables.files import write_table
from harness.tables.inference import EVALUATIONS, QUERIES

UNIT = EvaluationUnit(2, "binary", "H", (0, 1))


def rows_of_two_tasks():
    plain = {"string": "x", "int64": 1, "double": 0.5}
    made = {column.name: [plain[str(column.type)]] * 2 for column in EVALUATIONS}
    return pa.table(made, schema=EVALUATIONS)


def test_a_damaged_file_is_put_aside(tmp_path):
    path = tmp_path / "evaluations" / f"{UNIT.name}.parquet"
    path.parent.mkdir()
    path.write_bytes(b"PAR1")
    assert UnitFiles(tmp_path, "r").missing([UNIT]) == [UNIT]
    assert [one.name for one in path.parent.iterdir()] == [f"{UNIT.name}.parquet.broken"]


def test_a_file_without_all_its_rows_is_put_aside(tmp_path):
    path = tmp_path / "evaluations" / f"{UNIT.name}.parquet"
    path.parent.mkdir()
    write_table(EVALUATIONS.empty_table(), path, "r")
    assert UnitFiles(tmp_path, "r").missing([UNIT]) == [UNIT]
    assert not path.exists()


def test_a_unit_without_its_details_is_missing(tmp_path):
    files, queries = UnitFiles(tmp_path, "r"), tmp_path / "queries" / f"{UNIT.name}.parquet"
    for folder in ("evaluations", "queries"):
        (tmp_path / folder).mkdir()
    files.keep(UNIT, rows_of_two_tasks(), {"queries": QUERIES.empty_table()})
    assert files.missing([UNIT]) == []
    queries.write_bytes(b"PAR1")
    files.put_others_aside([UNIT])  # leaves the unit's files to `missing`
    assert queries.exists()
    assert files.missing([UNIT]) == [UNIT]
    assert files.has(UNIT.name)
    assert [one.name for one in queries.parent.iterdir()] == [f"{UNIT.name}.parquet.broken"]


def test_a_kill_between_two_files_leaves_no_result(tmp_path, monkeypatch):
    files, written = UnitFiles(tmp_path, "r"), []

    def write_and_stop(rows, path, run_id):
        written.append(path.parent.name)
        write_table(rows, path, run_id)
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.driver.unit_files.write_table", write_and_stop)
    with pytest.raises(KeyboardInterrupt):
        files.keep(UNIT, rows_of_two_tasks(), {"queries": QUERIES.empty_table()})
    assert written == ["queries"]
    assert not files.has(UNIT.name)
    assert files.missing([UNIT]) == [UNIT]


def test_damaged_files_and_copies_of_other_units_are_put_aside(tmp_path):
    folder, table = tmp_path / "evaluations", EVALUATIONS.empty_table()
    folder.mkdir()
    for name, run_id in ((UNIT.name, "s"), ("earlier", "r"), ("stranger", "s")):
        write_table(table, folder / f"{name}.parquet", run_id)
    (folder / "copy.parquet").write_bytes((folder / "earlier.parquet").read_bytes())
    UnitFiles(tmp_path, "r").put_others_aside([UNIT])
    assert sorted(one.name for one in folder.iterdir()) == sorted(
        [
            *("copy.parquet.broken", "earlier.parquet", "stranger.parquet.broken"),
            f"{UNIT.name}.parquet",  # `missing` puts this file aside
        ]
    )


@pytest.mark.parametrize("kind", ["link", "loop", "folder", "FIFO"])
def test_what_is_no_file_is_refused_and_stays(tmp_path, kind):
    path = tmp_path / "evaluations" / f"{UNIT.name}.parquet"
    path.parent.mkdir()
    match kind:
        case "link":
            path.symlink_to(tmp_path / "elsewhere")
        case "loop":
            path.symlink_to(path)
        case "folder":
            path.mkdir()
        case "FIFO":
            os.mkfifo(path)
    with pytest.raises(UserError, match=r"parquet must be a regular file, got a "):
        UnitFiles(tmp_path, "r").missing([UNIT])
    assert path.is_symlink() or path.is_dir() or path.is_fifo()
