"""What of a mask store is not as it was written, and how the rest of it goes on.

A damaged mask is named alone, not with its chunk, and forgotten; weights and inputs,
which can be computed again, are written anew. Only harness/storage/store.py calls this.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import ObjectStore

from harness.errors import UserError
from harness.places.durable import fsync
from harness.places.places import Place, each, put_aside, relative
from harness.storage.chunks import ChunkFiles, chunk_rows, crc32c
from harness.tables.files import read_table_file, read_tables, table_files, write_table
from harness.tables.schemas import TASKS

CODECS = (Crc32cCodec(),)  # after "bytes": no compression, masks of density 1/2 have no slack


class Rows(Protocol):
    """What is written as an array: an array, or something that makes its rows when asked."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows come first."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its values."""
        ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Damage:
    """One file of a store that is not as it was written.

    Attributes:
        path: of the file or array, relative to the run directory.
        task_ids: the masks lost with it; () where none is.
        reason: goes on the sentence that starts with the path.
    """

    path: str
    task_ids: tuple[int, ...]
    reason: str


def open_group(path: Place, mode: Any) -> zarr.Group:
    """Open a Zarr group.

    Args:
        path: of its folder.
        mode: r or r+.

    Raises:
        FileNotFoundError, ValueError: there is none.
    """
    if isinstance(path, Path):
        store: Any = path
    else:
        if mode != "r":
            path.bucket.before_write()
        store = ObjectStore(path.store(), read_only=mode == "r")
    return zarr.open_group(store, mode=mode, zarr_format=3, use_consolidated=False)


def write_fixed(
    root: zarr.Group, weights: Mapping[str, np.ndarray], inputs: Mapping[str, Rows]
) -> None:
    """Write what never changes, over what may be there: `weights/...` and `inputs/...`."""
    arrays: dict[str, Rows] = {f"inputs/{name}": rows for name, rows in inputs.items()}
    # An array of no dimension has no chunk along its first one.
    arrays |= {
        f"weights/{name}": np.atleast_1d(weight).astype(np.float32)
        for name, weight in weights.items()
    }
    for name, rows in arrays.items():
        num = min(rows.shape[0], chunk_rows(rows[:1].nbytes))
        array = root.create_array(
            name,
            shape=rows.shape,
            dtype=rows.dtype,
            chunks=(num, *rows.shape[1:]),
            compressors=CODECS,
            # a chunk left out because it holds only the fill value would look lost
            config={"write_empty_chunks": True},
            overwrite=True,
        )
        for part in _parts(rows.shape[0], num):
            array[part] = rows[part]


def _parts(num_rows: int, at_once: int) -> Iterator[slice]:
    """Slices that cover the rows, so that the whole need not be in memory."""
    return (slice(i, min(i + at_once, num_rows)) for i in range(0, num_rows, at_once))


def fsync_tree(folder: Place) -> None:
    """Force a folder and everything in it to disk."""
    if not isinstance(folder, Path):
        return
    for path in [*folder.rglob("*"), folder]:
        fsync(path)


def check_range(task_ids: np.ndarray, capacity: int) -> None:
    """Check that a store has a place for these tasks.

    Raises:
        ValueError: a task beyond the capacity.
    """
    beyond = task_ids[(task_ids < 0) | (task_ids >= capacity)]
    if len(beyond):
        raise ValueError(f"task_id must be >= 0 and < capacity {capacity}, got {beyond.tolist()}")


@dataclass(frozen=True)
class StoreFiles:
    """The files of one store, as verify and repair see them.

    Attributes:
        run_dir: what the paths of a Damage are relative to.
        fixed: names of the arrays that there must be besides the masks.
        capacity: tasks that there may be.
        chunks: of the array `masks`.
    """

    run_dir: Place
    fixed: Sequence[str]
    capacity: int
    chunks: ChunkFiles

    def verify(self, fixed: Collection[str] = ()) -> list[Damage]:
        """See MaskStore.verify."""
        task_ids, crcs, damage = self._verify_log()
        chunks = task_ids // self.chunks.rows

        def verify(chunk: int) -> list[Damage]:
            here = chunks == chunk
            return self._verify_chunk(chunk, task_ids[here].tolist(), crcs[here].tolist())

        for found in each(verify, range(self._num_chunks), self._root):
            damage += found
        return damage + self._verify_fixed(fixed)

    def repair(
        self,
        damage: Sequence[Damage],
        weights: Mapping[str, np.ndarray] | None,
        inputs: Mapping[str, Rows] | None,
    ) -> None:
        """See MaskStore.repair."""
        paths = {self.run_dir / finding.path for finding in damage}
        lost = {task_id for finding in damage for task_id in finding.task_ids}
        self._repair_fixed(paths, weights, inputs)
        # The log before the chunks: after a crash between them the masks are forgotten, and
        # the chunk is found again, as damage that costs nothing.
        self._repair_log(paths, lost)
        self._repair_chunks(paths, lost)

    @property
    def _root(self) -> Place:
        return self.run_dir / "masks.zarr"

    @property
    def _log(self) -> Place:
        return self.run_dir / "log"

    @property
    def _num_chunks(self) -> int:
        return -(-self.capacity // self.chunks.rows)

    def _name(self, path: Place) -> str:
        return relative(path, self.run_dir)

    def _fixed_names(self, fixed: Collection[str]) -> list[str]:
        found = {*fixed, *self.fixed}
        for group in ("weights", "inputs"):
            there = (path for path in (self._root / group).glob("*") if path.is_dir())
            found |= {f"{group}/{path.name}" for path in there}
        return sorted(found, key=lambda name: (name.startswith("inputs"), name))

    def _read_log_file(self, path: Place) -> pa.Table:
        table = read_table_file(path, TASKS)
        check_range(table["task_id"].to_numpy(), self.capacity)
        return table

    def _log_entries(self, path: Place) -> tuple[np.ndarray, np.ndarray] | None:
        """Tasks and checksums of a file of the log; None where it is broken."""
        try:
            table = self._read_log_file(path)
        except ValueError:
            return None
        # Copies: a view would keep all the other columns of the file.
        return table["task_id"].to_numpy().copy(), table["row_crc32c"].to_numpy().copy()

    def _verify_log(self) -> tuple[np.ndarray, np.ndarray, list[Damage]]:
        """Tasks and checksums of the files that can be read, and what is wrong with the log."""
        ids, crcs = [np.zeros(0, np.int64)], [np.zeros(0, np.uint32)]
        damage = []
        files = table_files(self._log)
        for path, found in zip(files, each(self._log_entries, files, self._log), strict=True):
            if found is None:
                reason = "is not a whole Parquet file of the table tasks"
                damage.append(Damage(self._name(path), (), reason))
                continue
            ids.append(found[0])
            crcs.append(found[1])
        task_ids = np.concatenate(ids)
        values, counts = np.unique(task_ids, return_counts=True)
        if twice := values[counts > 1].tolist():
            damage.append(Damage(self._name(self._log), tuple(twice), "names tasks more than once"))
        return task_ids, np.concatenate(crcs), damage

    def _verify_chunk(self, chunk: int, task_ids: list[int], crcs: list[int]) -> list[Damage]:
        """Check a chunk, and the masks in it that the log names."""
        reason, rows = self.chunks.examine(chunk)
        if rows is None and not task_ids:
            return []  # nothing was ever written there
        bad = {
            task_id
            for task_id, crc in zip(task_ids, crcs, strict=True)
            if rows is None or crc32c(rows[task_id % self.chunks.rows]) != crc
        }
        if not bad and not reason:
            return []
        # a bad row in a chunk with a good checksum: an older copy of the file, say
        reason = reason or "does not match the log"
        return [Damage(self._name(self.chunks.path(chunk)), tuple(sorted(bad)), reason)]

    def _verify_fixed(self, fixed: Collection[str]) -> list[Damage]:
        """Check the weights and inputs, by the checksums of their chunks."""
        damage = []
        root = open_group(self._root, "r")
        for name in self._fixed_names(fixed):
            try:
                array = cast(zarr.Array[Any], root[name])
                for part in _parts(array.shape[0], array.chunks[0]):
                    array[part]
                lost = array.nchunks - array.nchunks_initialized  # zarr reads these as zeros
            except Exception:  # whatever zarr makes of the bytes: the array cannot be read
                lost = 1
            if lost:
                reason = "is missing or does not match its checksums"
                damage.append(Damage(self._name(self._root / name), (), reason))
        return damage

    def _repair_fixed(
        self,
        paths: set[Place],
        weights: Mapping[str, np.ndarray] | None,
        inputs: Mapping[str, Rows] | None,
    ) -> None:
        """Write the weights and inputs again if one of them is among the damaged paths."""
        known = [f"weights/{name}" for name in weights or ()]
        known += [f"inputs/{name}" for name in inputs or ()]
        broken = sorted(name for name in self._fixed_names(known) if self._root / name in paths)
        if not broken:
            return
        if weights is None or inputs is None:
            raise UserError(
                f"{self._root / broken[0]} is damaged: copy it from another run of the same "
                "configuration, or choose another run_dir"
            )
        root = open_group(self._root, "r+")
        write_fixed(root, weights, inputs)
        fsync_tree(self._root)

    def _repair_log(self, paths: set[Place], lost: set[int]) -> None:
        """Move broken files aside, and take the lost tasks out of the others."""
        for path in table_files(self._log):
            if path in paths:
                put_aside(path)
                continue
            table = self._read_log_file(path)
            kept = table.filter(pc.invert(pc.is_in(table["task_id"], pa.array(lost, pa.int64()))))
            if 0 < len(kept) < len(table):
                write_table(kept, path)
            elif len(kept) < len(table):
                path.unlink()
        fsync(self._log)

    def _repair_chunks(self, paths: set[Place], lost: set[int]) -> None:
        """Write the chunks that are damaged or held lost masks, with what is committed alone."""
        committed = read_tables(self._log, TASKS, ["task_id"])["task_id"].to_numpy()
        for chunk in range(self._num_chunks):
            first = chunk * self.chunks.rows
            last = first + self.chunks.rows
            if self.chunks.path(chunk) in paths or any(first <= i < last for i in lost):
                old = self.chunks.examine(chunk)[1]
                new = self.chunks.empty()
                if old is not None:
                    places = committed[(committed >= first) & (committed < last)] - first
                    new[places] = old[places]
                self.chunks.write(chunk, new)
