import os

import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec

from harness.storage.chunks import ChunkFiles, CorruptMask, chunk_rows

ROWS, ROW_BYTES = 4, 64
SIZE = ROWS * ROW_BYTES + 4


@pytest.fixture
def chunks(tmp_path):
    return ChunkFiles(tmp_path, ROWS, ROW_BYTES)


@pytest.fixture
def rows():
    return np.random.default_rng(0).integers(0, 256, (ROWS, ROW_BYTES), np.uint8)


def test_chunks_never_hold_less_than_a_row():
    assert chunk_rows(100_000_000) == 1
    assert [chunk_rows(row_bytes) for row_bytes in (39_488, 295_424)] == [64, 8]


def test_zarr_writes_the_same_file_and_reads_ours(tmp_path, rows):
    array = zarr.create_array(
        tmp_path / "masks",
        shape=(2 * ROWS, ROW_BYTES),
        dtype="uint8",
        chunks=(ROWS, ROW_BYTES),
        fill_value=255,
        compressors=(Crc32cCodec(),),
    )
    array[ROWS:] = rows
    chunks = ChunkFiles(tmp_path / "masks", ROWS, ROW_BYTES)
    by_zarr = chunks.path(1).read_bytes()
    chunks.write(1, rows)
    assert chunks.path(1).read_bytes() == by_zarr
    chunks.write(0, rows[::-1].copy())
    assert (array[...] == np.concatenate([rows[::-1], rows])).all()


def test_a_chunk_comes_back_as_it_was(chunks, rows):
    chunks.write(3, rows)
    reason, found = chunks.examine(3)
    assert reason == ""
    assert (found == rows).all()
    assert (chunks.read_for_change(3) == rows).all()
    assert (chunks.read_rows(3, np.array([2, 0, 2])) == rows[[2, 0, 2]]).all()
    assert chunks.read_rows(3, np.array([], np.int64)).shape == (0, ROW_BYTES)


def test_a_chunk_never_written_is_missing_and_may_be_begun(chunks):
    assert chunks.examine(0) == ("is missing", None)
    assert (chunks.read_for_change(0) == 255).all()
    assert chunks.read_for_change(0).shape == (ROWS, ROW_BYTES)
    with pytest.raises(FileNotFoundError):
        chunks.read_rows(0, np.array([0]))


@pytest.mark.parametrize("size", [0, 1, 100, SIZE - 1, SIZE + 1])
def test_a_chunk_of_another_size_gives_the_rows_it_has_and_is_not_built_on(chunks, rows, size):
    chunks.write(0, rows)
    path = chunks.path(0)
    path.write_bytes((path.read_bytes() + b"x")[:size])
    reason, found = chunks.examine(0)
    assert reason == f"must have {SIZE} bytes, got {size if size < SIZE else 'more'}"
    there = min(size, ROWS * ROW_BYTES)
    assert (found.reshape(-1)[:there] == rows.reshape(-1)[:there]).all()
    assert (found.reshape(-1)[there:] == 255).all()
    with pytest.raises(CorruptMask, match=f"c/0/0 must have {SIZE} bytes"):
        chunks.read_for_change(0)
    last = chunks.read_rows(0, np.array([ROWS - 1]))[0]
    assert (last[max(0, there - (ROWS - 1) * ROW_BYTES) :] == 0).all()


@pytest.mark.parametrize("place", [0, ROW_BYTES, SIZE - 5, SIZE - 1])
def test_a_flipped_bit_is_found_and_not_built_on(chunks, rows, place):
    chunks.write(0, rows)
    path = chunks.path(0)
    data = bytearray(path.read_bytes())
    data[place] ^= 8
    path.write_bytes(data)
    assert chunks.examine(0)[0] == "does not match its checksum"
    with pytest.raises(CorruptMask, match="c/0/0 does not match its checksum"):
        chunks.read_for_change(0)


def test_a_full_disk_keeps_the_old_chunk(chunks, rows, monkeypatch):
    chunks.write(0, rows)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            chunks.write(0, chunks.empty())
    assert (chunks.examine(0)[1] == rows).all()
    assert [path.name for path in chunks.path(0).parent.iterdir()] == ["0"]
