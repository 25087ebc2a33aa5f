"""A refused start leaves no lock and no folder, and two drivers never hold one lock."""

import fcntl
import os

import pytest

from harness.errors import UserError
from harness.storage import lock as module
from harness.storage.lock import run_lock


def refuse(folder, *made):
    def start():
        for name in made:
            (folder / name).touch()
        raise UserError("no")

    with pytest.raises(UserError, match="no"), run_lock(folder):
        start()


def test_a_refused_start_leaves_nothing(tmp_path):
    refuse(tmp_path / "runs" / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_refused_start_keeps_what_was_there(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "other").touch()
    refuse(tmp_path / "runs" / "a")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["other"]
    folder = tmp_path / "run"
    with run_lock(folder):
        pass
    refuse(folder)
    assert [path.name for path in folder.iterdir()] == ["lock"]
    assert (folder / "lock").read_text() == ""


def test_an_error_in_a_run_that_has_begun_keeps_its_files(tmp_path):
    refuse(tmp_path / "run", "config.yaml")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_an_error_that_is_no_refusal_keeps_the_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path / "run"):
        raise ZeroDivisionError
    assert (tmp_path / "run" / "lock").exists()


def test_a_lock_that_was_removed_after_it_was_opened_keeps_nobody_out(tmp_path, monkeypatch):
    path, flock, removed = tmp_path / "lock", fcntl.flock, []

    def remove_first(file, operation):
        if not removed:  # a refused start ends between our `open` and our `flock`
            removed.append(os.fstat(file.fileno()).st_ino)
            path.unlink()
        flock(file, operation)

    monkeypatch.setattr(module.fcntl, "flock", remove_first)
    with run_lock(tmp_path):
        assert path.stat().st_ino != removed[0] or path.read_text()
        with pytest.raises(UserError, match="is in use by process"), run_lock(tmp_path):
            pass
