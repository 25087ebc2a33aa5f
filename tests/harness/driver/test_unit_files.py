"""The files of work units: a damaged one is put aside, and what is no file is refused."""

import os

import pytest

from harness.driver.unit_files import UnitFiles
from harness.errors import UserError
from harness.plan.units import EvaluationUnit

UNIT = EvaluationUnit(2, "binary", "H", (0, 1))


def test_a_damaged_file_is_put_aside(tmp_path):
    path = tmp_path / "evaluations" / f"{UNIT.name}.parquet"
    path.parent.mkdir()
    path.write_bytes(b"PAR1")
    assert UnitFiles(tmp_path, "r").missing([UNIT]) == [UNIT]
    assert [one.name for one in path.parent.iterdir()] == [f"{UNIT.name}.parquet.broken"]


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
