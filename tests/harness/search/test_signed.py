"""Only files that this user wrote are read, and only this user can read the key."""

import json
import os
import pickle
import shutil

import pyarrow.fs
import pytest

from harness.errors import UserError
from harness.search.signed import (
    UnsignedError,
    check_signed,
    key_path,
    make_key,
    read_signed,
    signed_files,
    write_signed,
)


@pytest.fixture(autouse=True)
def _own_key(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    make_key()


@pytest.fixture
def folder(tmp_path):
    """A folder with one signed file, and one in a subfolder."""
    found = tmp_path / "ray"
    (found / "trial").mkdir(parents=True)
    write_signed(found / "tuner.pkl", b"state\nof two lines")
    write_signed(found / "trial" / "error.pkl", b"")
    return found


def test_a_signed_file_is_read_in_any_folder(folder, tmp_path):
    check_signed(folder)
    shutil.copytree(folder, tmp_path / "moved")
    check_signed(tmp_path / "moved")
    assert read_signed(tmp_path / "moved" / "tuner.pkl") == b"state\nof two lines"


def test_a_folder_that_is_missing_has_nothing_to_refuse(tmp_path):
    check_signed(tmp_path / "nope")


def rename(folder):
    (folder / "tuner.pkl").rename(folder / "searcher-state.pkl")


def change(folder):
    (folder / "tuner.pkl").write_bytes((folder / "tuner.pkl").read_bytes() + b" ")


def cut(folder):
    (folder / "tuner.pkl").write_bytes((folder / "tuner.pkl").read_bytes()[:-1])


def replace(folder):
    (folder / "trial" / "error.pkl").write_bytes(b"stranger")


def add(folder):
    (folder / "trial" / "new.json").write_text("{}")


def block(folder):
    os.mkfifo(folder / "state.json")


def link(folder):
    (folder / "state.json").symlink_to("state.json")


def lose_the_key(folder):
    key_path().unlink()
    make_key()


@pytest.mark.parametrize("do", [rename, change, cut, replace, add, block, link, lose_the_key])
@pytest.mark.timeout(10)
def test_a_file_of_another_is_refused(folder, do):
    do(folder)
    with pytest.raises(UnsignedError, match=str(folder)):
        check_signed(folder)


def test_ray_tune_reads_only_signed_files_and_writes_signed_files(tmp_path):
    """Ray Tune copies folders with Arrow; a signature is made or checked on the way."""
    files = signed_files()
    source, target, back = (tmp_path / name for name in ("source", "target", "back"))
    for one in (source, target, back):
        one.mkdir()
    (source / "state.json").write_bytes(b"{}" * 1000)
    pyarrow.fs.copy_files(str(source), str(target), destination_filesystem=files)
    assert read_signed(target / "state.json") == b"{}" * 1000
    pyarrow.fs.copy_files(str(target), str(back), source_filesystem=files)
    assert (back / "state.json").read_bytes() == b"{}" * 1000
    (target / "state.json").write_bytes(b"{}")
    for read in (files.open_input_file, files.open_input_stream):
        with pytest.raises(UnsignedError):
            read(str(target / "state.json"))
    with pytest.raises(UnsignedError):
        pyarrow.fs.copy_files(str(target), str(back), source_filesystem=files)


def test_programs_that_know_no_signature_read_the_files(tmp_path):
    write_signed(tmp_path / "state.json", json.dumps({"a": 1}).encode())
    assert json.loads((tmp_path / "state.json").read_bytes()) == {"a": 1}
    write_signed(tmp_path / "state.pkl", pickle.dumps([1, 2]))
    with (tmp_path / "state.pkl").open("rb") as file:
        assert pickle.load(file) == [1, 2]
    for name in ("events.out.tfevents.1.host", "progress.csv", "result.json"):
        with signed_files().open_output_stream(str(tmp_path / name)) as file:
            file.write(b"1,2")
        assert (tmp_path / name).read_bytes() == b"1,2"
        with signed_files().open_input_stream(str(tmp_path / name)) as file:
            assert file.read() == b"1,2"
    check_signed(tmp_path)


def test_a_write_that_was_broken_off_leaves_the_old_file(tmp_path):
    files = signed_files()
    path = tmp_path / "state.json"
    write_signed(path, b"old")
    stream = files.open_output_stream(str(path))
    stream.write(b"half of the n")
    del stream
    assert read_signed(path) == b"old"


def test_a_file_that_cannot_be_saved_is_logged(tmp_path, caplog):
    """Arrow's copy itself ends without an error."""
    (tmp_path / "state.json").write_text("{}")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "name").mkdir()
    target = str(tmp_path / "taken")
    pyarrow.fs.copy_files(
        str(tmp_path / "state.json"), target, destination_filesystem=signed_files()
    )
    assert caplog.messages == [f"{target} not saved: Is a directory"]


def test_the_key_is_not_in_what_ray_tune_pickles(tmp_path):
    pickled = pickle.dumps(signed_files())
    assert key_path().read_bytes() not in pickled
    write_signed(tmp_path / "state.json", b"{}")
    with pickle.loads(pickled).open_input_file(str(tmp_path / "state.json")) as file:
        assert file.read() == b"{}"


def test_only_this_user_can_read_the_key_and_it_stays():
    key = key_path().read_bytes()
    assert key_path().stat().st_mode & 0o777 == 0o600
    make_key()
    assert key_path().read_bytes() == key


def open_to_all():
    key_path().chmod(0o644)


def of_another():
    os.chown(key_path(), 12345, -1)


def empty():
    key_path().write_bytes(b"")


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        (open_to_all, "mode 644"),
        pytest.param(
            of_another,
            "got user 12345",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away"),
        ),
        (empty, "must hold 64 hexadecimal digits"),
    ],
)
def test_a_key_that_another_may_know_is_refused(do, reason):
    do()
    with pytest.raises(UserError, match=reason) as refused:
        make_key()
    assert str(refused.value).endswith("delete the file")


@pytest.mark.parametrize("base", ["/proc/nope", "/dev/null"])
def test_a_key_that_cannot_be_kept_is_one_line(base, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", base)
    with pytest.raises(UserError, match="set XDG_CONFIG_HOME to a folder that only you can write"):
        make_key()
