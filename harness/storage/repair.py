"""Find damaged files in a mask store, and repair the store without losing the intact masks.

Every start of a run checks each committed row against its checksum. If a row is wrong, only its
mask is lost, and the other masks of the chunk stay. Repair removes the lost mask from the log. The
run then trains the block of the mask again, because a mask can only be reproduced together with its
block, and commits only the missing rows. Weights and inputs can be computed again, so repair
rewrites them. Shared arrays are computed again by the training. Only harness/storage/store.py calls
this module.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zarr

from harness.errors import UserError
from harness.places.durable import fsync, fsync_tree
from harness.places.places import Place, each, put_aside, relative
from harness.places.reading import read_json
from harness.storage.arrays import GROUP, open_group, parts, write_fixed
from harness.storage.chunks import ChunkFiles, crc32c
from harness.storage.content import StoreContent
from harness.storage.shared import SharedFiles
from harness.tables.files import read_table_file, read_tables, table_files, write_table
from harness.tables.schemas import TASKS


@dataclass(frozen=True)
class Damage:
    """One damaged file or array of a store.

    Attributes:
        path: path of the file or array, relative to the run directory.
        task_ids: tasks whose masks are lost with the file; () if no mask is lost.
        reason: what is wrong. Path and reason together form a sentence, such as
            "masks.zarr/masks/c/0/0 is missing".
    """

    path: str
    task_ids: tuple[int, ...]
    reason: str


def check_range(task_ids: np.ndarray, capacity: int) -> None:
    """Check that all task numbers are below a store's capacity.

    Raises:
        ValueError: a task number is negative or too large.
    """
    beyond = task_ids[(task_ids < 0) | (task_ids >= capacity)]
    if len(beyond):
        raise ValueError(f"task_id must be >= 0 and < capacity {capacity}, got {beyond.tolist()}")


@dataclass(frozen=True)
class StoreFiles:
    """The files of one mask store, and the methods that check and repair them for `MaskStore`.

    Attributes:
        run_dir: the run directory. Paths in a Damage are relative to this directory.
        run_id: the identity of the run, which is written in every log file.
        fixed: names of the arrays that must exist in addition to `masks`, such as weights/layer1.
        capacity: largest possible number of tasks.
        chunks: chunk files of the array `masks`.
        shared: chunk files of the shared arrays.
    """

    run_dir: Place
    run_id: str
    fixed: Sequence[str]
    capacity: int
    chunks: ChunkFiles
    shared: SharedFiles

    def verify(self, fixed: Collection[str] = ()) -> list[Damage]:
        """See MaskStore.verify."""
        task_ids, crcs, damage = self._verify_log()
        chunks = task_ids // self.chunks.rows

        def verify(chunk: int) -> list[Damage]:
            here = chunks == chunk
            return self._verify_chunk(chunk, task_ids[here].tolist(), crcs[here].tolist())

        for found in each(verify, self._chunks_there(chunks), self._root):
            damage += found
        for path, reason in self.shared.damaged(set(task_ids.tolist())):
            damage.append(Damage(self._name(path), (), reason))
        return damage + self._verify_fixed(fixed)

    def repair(
        self,
        damage: Sequence[Damage],
        content: StoreContent | None,
    ) -> None:
        """See MaskStore.repair."""
        paths = {self.run_dir / finding.path for finding in damage}
        lost = {task_id for finding in damage for task_id in finding.task_ids}
        self._repair_fixed(paths, content)
        self.shared.remove(paths)
        # Repair the log before the chunks. After a crash between the two steps, the log no longer
        # names the lost masks, so the next verify reports the chunk without lost tasks.
        self._repair_log(paths, lost)
        self._repair_chunks(paths, lost)

    @property
    def _root(self) -> Place:
        return self.run_dir / "masks.zarr"

    @property
    def _log(self) -> Place:
        return self.run_dir / "log"

    def _chunks_there(self, named: np.ndarray) -> list[int]:
        """List the indices of the chunks that have a file, and the indices in `named`.

        The capacity is read from a file. If this file is damaged, the capacity may be huge. So this
        method does not try every index.
        """
        folders = (path.name for path in (self._root / "masks" / "c").glob("*"))
        there = {int(name) for name in folders if name.isascii() and name.isdecimal()}
        num_chunks = -(-self.capacity // self.chunks.rows)
        return sorted(chunk for chunk in there | set(named.tolist()) if chunk < num_chunks)

    def _name(self, path: Place) -> str:
        return relative(path, self.run_dir)

    def _fixed_names(self, fixed: Collection[str]) -> list[str]:
        found = {*fixed, *self.fixed}
        for group in ("weights", "inputs"):
            there = (path for path in (self._root / group).glob("*") if path.is_dir())
            found |= {f"{group}/{path.name}" for path in there}
        return sorted(found, key=lambda name: (name.startswith("inputs"), name))

    def _read_log_file(self, path: Place) -> pa.Table:
        table = read_table_file(path, TASKS, run_id=self.run_id)
        check_range(table["task_id"].to_numpy(), self.capacity)
        return table

    def _log_entries(self, path: Place) -> tuple[np.ndarray, np.ndarray] | None:
        """Read the task numbers and checksums of a log file; None if the file is broken."""
        try:
            table = self._read_log_file(path)
        except ValueError:
            return None
        # Return copies, because views would keep all other columns of the file in memory.
        return table["task_id"].to_numpy().copy(), table["row_crc32c"].to_numpy().copy()

    def _verify_log(self) -> tuple[np.ndarray, np.ndarray, list[Damage]]:
        """Check the log.

        Returns:
            Three values: task numbers, checksums and damage. The task numbers and checksums are
            from all log files that can be read. The list of damage is about the log only.
        """
        ids, crcs = [np.zeros(0, np.int64)], [np.zeros(0, np.uint32)]
        damage = []
        files = table_files(self._log)
        for path, found in zip(files, each(self._log_entries, files, self._log), strict=True):
            if found is None:
                reason = "is not a whole Parquet file of this run's log"
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
        """Check the file of a chunk, and the masks in it that the log names.

        Args:
            chunk: index of the chunk.
            task_ids: tasks of this chunk that the log names.
            crcs: checksums of the rows of these tasks, from the log.
        """
        reason, rows = self.chunks.examine(chunk)
        if rows is None and not task_ids:
            return []  # nothing was ever written to this chunk
        bad = {
            task_id
            for task_id, crc in zip(task_ids, crcs, strict=True)
            if rows is None or crc32c(rows[task_id % self.chunks.rows]) != crc
        }
        if not bad and not reason:
            return []
        # If the checksum of the chunk is right but a row is wrong, the file may be an older copy.
        reason = reason or "does not match the log"
        return [Damage(self._name(self.chunks.path(chunk)), tuple(sorted(bad)), reason)]

    def _verify_fixed(self, fixed: Collection[str]) -> list[Damage]:
        """Check the weights and inputs against the checksums of their chunks."""
        damage = []
        root = open_group(self._root, "r")
        for name in self._fixed_names(fixed):
            try:
                read_json(self._root / name / GROUP)  # zarr sets no limits to the metadata
                array = cast(zarr.Array[Any], root[name])
                for part in parts(array.shape[0], array.chunks[0]):
                    array[part]
                lost = array.nchunks - array.nchunks_initialized  # zarr reads missing chunks as 0
            except Exception:  # zarr raises many types of errors for unreadable bytes
                lost = 1
            if lost:
                reason = "is missing or does not match its checksums"
                damage.append(Damage(self._name(self._root / name), (), reason))
        return damage

    def _repair_fixed(self, paths: set[Place], content: StoreContent | None) -> None:
        """Write all weights and inputs again if at least one of these arrays is damaged."""
        known = [] if content is None else content.fixed_names
        broken = sorted(name for name in self._fixed_names(known) if self._root / name in paths)
        if not broken:
            return
        if content is None:
            raise UserError(
                f"{self._root / broken[0]} is damaged: copy it from another run of the same "
                "configuration, or choose another run_dir"
            )
        root = open_group(self._root, "r+")
        write_fixed(root, content)
        fsync_tree(self._root)

    def _repair_log(self, paths: set[Place], lost: set[int]) -> None:
        """Rename the broken log files, and remove the lost tasks from the other log files."""
        for path in table_files(self._log):
            if path in paths:
                put_aside(path)
                continue
            table = self._read_log_file(path)
            kept = table.filter(pc.invert(pc.is_in(table["task_id"], pa.array(lost, pa.int64()))))
            if 0 < len(kept) < len(table):
                write_table(kept, path, self.run_id)
            elif len(kept) < len(table):
                path.unlink()
        fsync(self._log)

    def _repair_chunks(self, paths: set[Place], lost: set[int]) -> None:
        """Rewrite each chunk that is damaged or has lost masks, with its committed masks only."""
        committed = read_tables(self._log, TASKS, ["task_id"], run_id=self.run_id)[
            "task_id"
        ].to_numpy()
        lost_chunks = {i // self.chunks.rows for i in lost}
        for chunk in self._chunks_there(np.array(sorted(lost_chunks), np.int64)):
            first = chunk * self.chunks.rows
            last = first + self.chunks.rows
            if self.chunks.path(chunk) in paths or chunk in lost_chunks:
                old = self.chunks.examine(chunk)[1]
                new = self.chunks.empty()
                if old is not None:
                    places = committed[(committed >= first) & (committed < last)] - first
                    new[places] = old[places]
                self.chunks.write(chunk, new)
