"""Temporary files on a machine where only the run directory can be written."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness.places.temporary import FOLDER, temporary_files_in
from patience import PATIENCE

ROOT = Path(__file__).parents[3]
READ_ONLY = """
mount --make-rprivate /
mount --bind "$1" "$1"
mount -o remount,bind,ro / /
shift
exec "$@"
"""


@pytest.fixture
def _no_folder(monkeypatch):
    """Let Python find no folder for temporary files except that of TMPDIR."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.delenv("TMPDIR", raising=False)
    given = lambda: [os.environ["TMPDIR"]] if "TMPDIR" in os.environ else []  # noqa: E731
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", given)


@pytest.mark.usefixtures("_no_folder")
def test_the_run_directory_takes_the_place_of_a_missing_folder(tmp_path):
    with temporary_files_in(tmp_path), tempfile.NamedTemporaryFile() as file:
        assert Path(file.name).parent == tmp_path / FOLDER
    assert list(tmp_path.iterdir()) == []
    assert "TMPDIR" not in os.environ
    with pytest.raises(FileNotFoundError):
        tempfile.gettempdir()


def test_a_folder_that_there_is_stays_in_use(tmp_path):
    before = tempfile.gettempdir()
    with temporary_files_in(tmp_path):
        assert tempfile.gettempdir() == before
        assert list(tmp_path.iterdir()) == []


def can_mount(folder: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(folder), "true"]
    return subprocess.run(tried, capture_output=True).returncode == 0


@pytest.mark.slow
def test_a_run_without_a_home_on_a_read_only_disk(tmp_path):
    if not can_mount(tmp_path):
        pytest.skip("needs permission to mount")
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "TMPDIR")}
    command = [sys.executable, "harness/scale.py", "data=digits", "tasks=2", "outputs=20"]
    command += ["train.steps=5", "train.batch_size=16", "executor=serial", "quiet=true"]
    command += ["network=mlp", "network_options.hidden=[8]", f"run_dir={tmp_path}/run"]
    # Numba cannot load the kernels of other runs here. This algorithm needs no kernel.
    command += ["evaluate.algorithms=[max_logit]"]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(tmp_path), *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").is_file(), done.stderr
