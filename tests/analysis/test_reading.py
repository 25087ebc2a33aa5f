"""Files of a run are read with limits, and only if they are regular files."""

import os
import time

import numpy as np
import pytest
import zarr
from pyarrow.fs import LocalFileSystem

from analysis.load import configuration, load
from analysis.reading import parse_configuration, parse_json, read_text
from analysis.stored import layout

KINDS = {
    "link": lambda path: path.symlink_to(path.with_name("file")),
    "loop": lambda path: path.symlink_to(path),
    "folder": lambda path: path.mkdir(),
    "FIFO": os.mkfifo,
}


@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_are_read(kind, tmp_path):
    (tmp_path / "file").write_text("a: 1\n...\n")
    (tmp_path / "log").mkdir()
    for path in (tmp_path / "config.yaml", tmp_path / "log" / "a.parquet"):
        KINDS[kind](path)
    with pytest.raises(ValueError, match=r"config\.yaml must be a regular file, got"):
        configuration(tmp_path)
    with pytest.raises(ValueError, match=r"a\.parquet must be a regular file, got"):
        load(tmp_path, "tasks")


@pytest.mark.parametrize("kind", ["link", "loop", "FIFO"])
def test_a_store_has_regular_files_only(kind, tmp_path):
    root = zarr.open_group(tmp_path / "masks.zarr", mode="w")
    array = root.create_array("weights/layer1", data=np.zeros((2, 4), np.float32))
    array[:] = 1
    (tmp_path / "masks.zarr/weights/layer1/c/0/0").unlink()
    KINDS[kind](tmp_path / "masks.zarr/weights/layer1/c/0/0")
    with pytest.raises(ValueError, match="layer1/c/0/0 must be a regular file, got a link or a F"):
        layout(tmp_path)


def test_a_text_has_a_largest_size(tmp_path):
    (tmp_path / "it").write_text("12345")
    assert read_text(LocalFileSystem(), str(tmp_path / "it"), 5) == "12345"
    with pytest.raises(ValueError, match="it must have at most 4 bytes, got 5"):
        read_text(LocalFileSystem(), str(tmp_path / "it"), 4)
    with pytest.raises(FileNotFoundError, match="nowhere must exist, got no file"):
        read_text(LocalFileSystem(), str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\n", "got a file that may be cut"),
        ("a: &x 1\nb: *x\n...\n", "anchors, aliases and tags are not allowed"),
        ("a: !!int 1\n...\n", "anchors, aliases and tags are not allowed"),
        ("a: .inf\n...\n", "numbers must be finite"),
        ("- 1\n...\n", "no keys"),
        ("a: [\n...\n", "YAML of keys and plain values, got an error"),
        (f"a: {'[' * 3000}\n...\n", "nested at most 32 levels"),
    ],
)
def test_a_configuration_is_plain_and_whole(text, said):
    began = time.perf_counter()
    with pytest.raises(ValueError, match=said) as refused:
        parse_configuration(text, "config.yaml")
    assert "\n" not in str(refused.value)
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize("text", ["{", "Infinity", "[" * 100_000])
def test_json_is_plain(text):
    with pytest.raises(ValueError, match=r"it\.json must be JSON, got an error"):
        parse_json(text, "it.json")
