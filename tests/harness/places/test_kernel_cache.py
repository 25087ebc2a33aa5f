"""Kernels are stored in a folder that can be written, and never in a folder named `~`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.places import kernel_cache
from harness.places.kernel_cache import set_kernel_cache

ROOT = Path(__file__).parents[3]
# A process of a user that is not root and has no entry in /etc/passwd, so no home.
STRANGER = ["unshare", "--user", "--map-user=12345", "--map-group=12345"]
ASK = """
import sys
import harness
from supsup_core.kernels.scoring import _fused
print(_fused.stats.cache_path)
"""


def has_strangers():
    try:
        return subprocess.run([*STRANGER, "true"], capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.fixture(scope="module")
def read_only(tmp_path_factory):
    """The folder of a copy of the packages that its user cannot write to."""
    folder = tmp_path_factory.mktemp("installed")
    ignored = shutil.ignore_patterns("__pycache__")
    for package in ("harness", "supsup_core"):
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    folders = [path for path in (folder, *folder.rglob("*")) if path.is_dir()]
    for path in folders:
        path.chmod(0o555)
    yield folder
    for path in folders:
        path.chmod(0o755)


def asked(read_only, cwd, **environment):
    """Return the cache folder of a kernel in a process of a stranger; a value None unsets."""
    everything = os.environ | {"PYTHONPATH": str(read_only), "NUMBA_CACHE_DIR": None} | environment
    done = subprocess.run(
        [*STRANGER, sys.executable, "-B", "-c", ASK],
        cwd=cwd,
        env={name: value for name, value in everything.items() if value is not None},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not has_strangers(), reason="needs user namespaces")
@pytest.mark.parametrize("home", ["/proc", None])
def test_without_a_writable_home_kernels_are_stored_in_a_temporary_folder(
    home, read_only, tmp_path
):
    temporary, cwd = tmp_path / "temporary", tmp_path / "cwd"
    temporary.mkdir()
    cwd.mkdir()
    nowhere = {"HOME": home, "XDG_CACHE_HOME": None, "TMPDIR": str(temporary)}
    expected = temporary / "supermask-scaling-12345"
    assert Path(asked(read_only, cwd, **nowhere)).parent == expected
    assert expected.stat().st_mode & 0o777 == 0o700
    assert list(cwd.iterdir()) == []  # no folder named ~


@pytest.mark.skipif(not has_strangers(), reason="needs user namespaces")
def test_where_nothing_can_be_written_kernels_are_not_stored(read_only):
    command = "import tempfile; tempfile.tempdir = '/proc'" + ASK
    environment = os.environ | {"PYTHONPATH": str(read_only), "HOME": "/proc"}
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    done = subprocess.run(
        [*STRANGER, sys.executable, "-B", "-c", command],
        cwd="/proc",
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


@pytest.fixture
def unwritable(monkeypatch, tmp_path):
    """Let Numba find no folder of its own; return the folder of temporary files."""
    monkeypatch.setattr(kernel_cache, "_can_write", lambda folder: False)
    monkeypatch.setattr(kernel_cache.tempfile, "tempdir", str(tmp_path))
    # Set first, so that monkeypatch restores the variable whatever the test does.
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    return tmp_path


def chosen():
    set_kernel_cache()
    return Path(os.environ["NUMBA_CACHE_DIR"])


def test_later_starts_find_the_same_folder(unwritable, monkeypatch):
    first = chosen()
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    assert chosen() == first == unwritable / f"supermask-scaling-{os.getuid()}"


def test_a_folder_that_others_can_write_to_is_not_trusted(unwritable):
    planted = unwritable / f"supermask-scaling-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    found = chosen()
    assert found != planted
    assert found.stat().st_mode & 0o777 == 0o700


def test_a_link_is_not_followed(unwritable, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    elsewhere.chmod(0o700)
    planted = unwritable / f"supermask-scaling-{os.getuid()}"
    planted.symlink_to(elsewhere)
    assert chosen().resolve() != elsewhere


def test_a_folder_that_the_user_names_is_kept(unwritable, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/somewhere")
    assert chosen() == Path("/somewhere")


def test_a_writable_installation_stays_as_it_is(unwritable, monkeypatch):
    monkeypatch.setattr(kernel_cache, "_can_write", lambda folder: folder.name == "supsup_core")
    set_kernel_cache()
    assert "NUMBA_CACHE_DIR" not in os.environ
