"""Files of a run are read with limits, and only if they are regular files."""

import os
import socket
import time

import numpy as np
import pytest

from harness.errors import UserError
from harness.places import reading
from harness.places.reading import (
    END,
    open_regular,
    parse_yaml,
    read_bytes,
    read_configuration,
    read_json,
)
from harness.places.reading_arrays import read_array, read_into

KINDS = {
    "a symbolic link": lambda path: path.symlink_to(path.with_name("file")),
    "a folder": lambda path: path.mkdir(),
    "a FIFO": os.mkfifo,
    "a socket": lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
}
READERS = [
    read_bytes,
    read_json,
    read_configuration,
    open_regular,
    lambda path: open_regular(path, create=True),
    lambda path: read_array(path, 10),
    lambda path: read_into(path, [0], np.zeros((1, 1), np.uint8)),
]


@pytest.mark.filterwarnings("ignore:unclosed")
@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_are_read(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    (tmp_path / "file").write_text("1")
    path = tmp_path / "it"
    KINDS[kind](path.relative_to(tmp_path) if kind == "a socket" else path)
    for read in READERS:
        with pytest.raises(UserError, match=f"it must be a regular file, got {kind}: replace it"):
            read(path)
    assert (tmp_path / "file").read_text() == "1"


def test_a_link_that_leads_to_itself_or_nowhere_is_refused(tmp_path):
    for target in ("it", "nowhere"):
        (tmp_path / "it").unlink(missing_ok=True)
        (tmp_path / "it").symlink_to(tmp_path / target)
        for read in READERS:
            with pytest.raises(UserError, match="got a symbolic link"):
                read(tmp_path / "it")
    assert not (tmp_path / "nowhere").exists()


def test_a_link_is_followed_on_request(tmp_path):
    (tmp_path / "file").write_text("1")
    (tmp_path / "it").symlink_to(tmp_path / "file")
    with open_regular(tmp_path / "it", follow=True) as file:
        assert file.read() == b"1"
    with pytest.raises(UserError, match="got a device"):
        open_regular("/dev/zero", follow=True)


def test_a_missing_file_is_missing_unless_it_may_be_created(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "it")
    with open_regular(tmp_path / "it", create=True) as file:
        file.write(b"new")
    assert read_bytes(tmp_path / "it") == b"new"


def test_a_file_has_a_largest_size(tmp_path, monkeypatch):
    path = tmp_path / "it"
    path.write_bytes(b"[1,2]")
    assert read_bytes(path, 5) == b"[1,2]"
    with pytest.raises(UserError, match="it must have at most 4 bytes, got more"):
        read_bytes(path, 4)
    monkeypatch.setattr(reading, "LARGEST_JSON", 4)
    with pytest.raises(UserError, match="at most 4 bytes"):
        read_json(path)
    assert len(read_array(path, 3)) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x 1\nb: *x", "anchors, aliases and tags are not allowed in line 1"),
        ("a: 1\nb: *x", "anchors, aliases and tags are not allowed in line 2"),
        ("a: !!python/name:os.system 1", "anchors, aliases and tags"),
        ("a: 1\na: 2", "a key occurs twice"),
        ("a: .inf", "numbers must be finite, got inf"),
        ("a: .nan", "numbers must be finite, got nan"),
        ("a: 2020-01-01", "values must be texts or numbers"),
        (f"a: 1:{'1:' * 500}1.0", "a number is too large"),
        ("1: 2", "keys must be texts"),
        ("a: [", "expected the node content"),
        ("a: 1\n--- \nb: 2", "expected a single document|but found another document"),
        ("- " * 40 + "1", "nested at most 32 levels"),
        ("[" * 3_000, "nested at most 32 levels"),
        ("{? " * 3_000, "nested at most 32 levels"),
    ],
)
def test_yaml_is_plain(text, said):
    with pytest.raises(ValueError, match=said) as refused:
        parse_yaml(text)
    assert "\n" not in str(refused.value)


def test_an_alias_bomb_is_refused_at_once():
    levels = [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 10)]
    began = time.perf_counter()
    with pytest.raises(ValueError, match="aliases"):
        parse_yaml("\n".join(["l0: &l0 x", *levels]))
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize("text", ["[" * 100_000, "Infinity", "NaN", "1e999", '{"a": ', "9" * 9_999])
def test_json_is_plain(text, tmp_path):
    (tmp_path / "it").write_text(text)
    with pytest.raises(ValueError, match=r".") as refused:
        read_json(tmp_path / "it")
    assert not isinstance(refused.value, RecursionError)


def test_a_configuration_ends_with_a_mark(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"a: [1]\nb: x\n{END}")
    assert read_configuration(path) == {"a": [1], "b": "x"}
    for text in ("a: [1]\n", "a: [1]\nb: x...", "a: 1\n... \nb: 2"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"the last line must be \.\.\., got another line, so"):
            read_configuration(path)
