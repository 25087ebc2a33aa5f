"""The mask store: packed masks in Zarr, and the log of the masks that exist.

A mask exists when a file of `log/` has its task number and the CRC-32C of its row in
`masks.zarr/masks`. Before that, the bytes of the row mean nothing. Only the process that has the
lock (harness/storage/lock.py) writes. Any number of processes may read. zarr creates the arrays,
and any program can read them with zarr. This program reads and writes the chunks of masks without
zarr (harness/storage/chunks.py). harness/storage/repair.py finds and repairs damage.

Shape letters: B masks per commit or read, R bytes per row.
"""

from collections.abc import Collection, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from harness.errors import UserError
from harness.places.durable import remove_partial_files
from harness.places.places import Place
from harness.storage.arrays import open_masks
from harness.storage.attributes import check_format, fixed_arrays
from harness.storage.chunks import ChunkFiles, CorruptMask, crc32c
from harness.storage.content import StoreContent
from harness.storage.repair import Damage, StoreFiles, check_range
from harness.storage.shared import SharedFiles, SharedSpec
from harness.tables.files import create_table_file, read_tables
from harness.tables.schemas import TASKS
from supsup_core.arrays import check_shape

# Largest number of log files per commit. If each unit had its own log file, a driver with many
# waiting units would spend its time on flushes, and every later start would open many files.
_LOG_FILES_AT_ONCE = 8


def _with_checksums(tasks: pa.Table, rows: np.ndarray) -> pa.Table:
    """Make rows of the log: add the CRC-32C of each mask row to the table `tasks`."""
    crcs = pa.array([crc32c(np.ascontiguousarray(row)) for row in rows], pa.uint32())
    columns = {name: tasks[name] for name in TASKS.names if name != "row_crc32c"}
    return pa.table({**columns, "row_crc32c": crcs}, schema=TASKS)


class MaskStore:
    """The masks of one run directory. Use `open` to get a MaskStore.

    Attributes:
        shared: the arrays that tasks train together or pass on.
    """

    def __init__(self, run_dir: Place) -> None:
        self._root = run_dir / "masks.zarr"
        self._log = run_dir / "log"
        root, masks = open_masks(self._root)
        self._attributes: dict[str, Any] = dict(root.attrs)
        check_format(self._root, self._attributes)
        self._row_bytes = int(self._attributes["row_bytes"])
        self._run_id: str = self._attributes["run_id"]
        self._capacity = masks.shape[0]
        self._chunks = ChunkFiles(self._root / "masks", masks.chunks[0], self._row_bytes)
        self.shared = SharedFiles(self._root, SharedSpec.of(self._attributes))
        self._files = StoreFiles(
            run_dir,
            self._run_id,
            fixed_arrays(self._attributes),
            self._capacity,
            self._chunks,
            self.shared,
        )
        # (capacity,) whether each task is committed; None until the log is read. Only a writer
        # needs this array.
        self._committed: np.ndarray | None = None

    @classmethod
    def open(cls, run_dir: Place, *, read_only: bool = False) -> "MaskStore":
        """Open the store of a run.

        Args:
            run_dir: the run directory.
            read_only: if true, change no file. If false, this process must have the lock
                (run_lock), and this method removes the partial files of writers that crashed.

        Raises:
            UserError: the run has no store, the store has an unknown format, or the store has masks
                but no log.
        """
        store = cls(run_dir)
        if not read_only:
            store._make_log()
            remove_partial_files(run_dir / "masks.zarr", below=True)
            remove_partial_files(run_dir / "log")
        return store

    def _make_log(self) -> None:
        """Make the log folder if it is missing and the run has no masks.

        Some programs that copy files leave out empty folders.

        Raises:
            UserError: the store has masks, so its log is lost.
        """
        if not isinstance(self._log, Path) or self._log.is_dir():
            return
        if (self._root / "masks" / "c").exists():
            raise UserError(
                f"{self._log} must be the log of the masks in masks.zarr, got no folder: restore "
                "the folder, or make an empty folder of this name to train all tasks again"
            )
        self._log.mkdir()

    @property
    def row_bytes(self) -> int:
        """R, the number of bytes per row."""
        return self._row_bytes

    @property
    def capacity(self) -> int:
        """Largest possible number of tasks."""
        return self._capacity

    @property
    def run_id(self) -> str:
        """The identity of the run, which is written in all its table files."""
        return self._run_id

    @property
    def attributes(self) -> dict[str, Any]:
        """A copy of all attributes of the group: a mapping from name to JSON value."""
        return dict(self._attributes)

    def commit(self, unit: str, tasks: pa.Table, rows: UInt8[np.ndarray, "B R"]) -> pa.Table:
        """Store the masks of a work unit. When this method returns, all masks are on disk.

        Args:
            unit: name of the work unit, also used for its log file.
            tasks: one row per mask, with the columns of harness.tables.schemas.TASKS. row_crc32c
                may be missing, because this method computes it.
            rows: packed masks, in the order of `tasks`.

        Returns:
            `tasks` with checksums, as written to the log.

        Raises:
            ValueError: a task number is out of range, repeated or already committed. Or `rows` has
                the wrong shape, or a row does not end with a zero byte. Or `tasks` has the wrong
                columns, or `unit` cannot be a file name.
            CorruptMask: a chunk to which the rows would be written is damaged.
            OSError: for example, the disk is full. Nothing is committed; a later call may commit
                the same masks.
        """
        return self.commit_together([(unit, tasks, rows)])

    def commit_together(
        self, units: Sequence[tuple[str, pa.Table, UInt8[np.ndarray, "B R"]]]
    ) -> pa.Table:
        """Store the masks of several work units together, so that each chunk is written only once.

        For up to 8 units, each unit gets a log file. If there are more units, some log files are
        for several units.

        Args:
            units: (unit, tasks, rows) of each work unit, as for `commit`; at least one.

        Returns:
            `tasks` of all units with checksums, as written to the log, in the order of `units`.

        Raises:
            ValueError, CorruptMask: see commit.
            OSError: for example, the disk is full. The first units may already be committed.
        """
        for unit in units:
            self._check_commit(*unit)
        tables = [_with_checksums(tasks, rows) for _, tasks, rows in units]
        table = pa.concat_tables(tables)
        task_ids = table["task_id"].to_numpy()
        self._check_new(task_ids)

        self._write_rows(task_ids, np.concatenate([rows for _, _, rows in units]))
        names = [name for name, _, _ in units]
        for places in np.array_split(np.arange(len(units)), min(len(units), _LOG_FILES_AT_ONCE)):
            part = pa.concat_tables([tables[place] for place in places])
            self._write_log(names[places[0]], part)
            self._known()[part["task_id"].to_numpy()] = True
        return table

    def tasks(self, columns: Sequence[str] = TASKS.names) -> pa.Table:
        """Read the table `tasks` from the log: one row per existing mask, sorted by task_id.

        Args:
            columns: names of the columns to read; task_id must be one of them.

        Raises:
            ValueError: a log file is broken or names a task beyond the capacity; see verify and
                repair.
        """
        table = read_tables(self._log, TASKS, columns, run_id=self._run_id).sort_by("task_id")
        task_ids = table["task_id"].to_numpy()
        check_range(task_ids, self._capacity)
        self._committed = np.zeros(self._capacity, bool)
        self._committed[task_ids] = True
        return table

    def read(
        self, task_ids: Sequence[int] | np.ndarray, crcs: Sequence[int] | np.ndarray
    ) -> UInt8[np.ndarray, "B R"]:
        """Read masks and check each of them against its checksum.

        Args:
            task_ids: (B,) task numbers, in any order.
            crcs: (B,) checksum of each task, from the column row_crc32c. Task numbers and checksums
                must come from one call of `tasks`.

        Returns:
            Packed rows, in the order of `task_ids`.

        Raises:
            CorruptMask: a row is missing or does not match its checksum.
            ValueError: a task number is out of range, or `crcs` has another length than
                `task_ids`.
        """
        ids, expected = np.asarray(task_ids, np.int64), np.asarray(crcs, np.int64)
        check_shape("crcs", expected.shape, ids.shape, "B")
        check_range(ids, self._capacity)
        rows = np.zeros((len(ids), self._row_bytes), np.uint8)
        chunks, places = np.divmod(ids, self._chunks.rows)
        for chunk in np.unique(chunks).tolist():
            path = self._chunks.path(chunk)
            here = np.flatnonzero(chunks == chunk)
            try:
                rows[here] = self._chunks.read_rows(chunk, places[here])
            except FileNotFoundError as error:
                raise CorruptMask(f"tasks {ids[here].tolist()}: {path} is missing") from error
            for i in here:
                if crc32c(rows[i]) != expected[i]:
                    raise CorruptMask(
                        f"task {ids[i]}: its mask in {path} does not match its checksum"
                    )
        return rows

    def verify(self, fixed: Collection[str] = ()) -> list[Damage]:
        """Check every committed mask, every chunk, the weights, the inputs and the log.

        Args:
            fixed: names of arrays that must exist, such as "weights/layer1" or
                "inputs/permutations". All other weights and inputs in the store are checked too.

        Returns:
            The damage, for `repair`; [] if everything is intact. The `task_ids` of a Damage are
            only the tasks whose masks are wrong, not all tasks of a damaged chunk. If a task is
            only in a log file that cannot be read, its mask no longer exists, and the task is in no
            `task_ids`.

        Raises:
            OSError: a file exists but cannot be read.
        """
        return self._files.verify(fixed)

    def repair(self, damage: Sequence[Damage], content: StoreContent | None = None) -> None:
        """Remove the damaged masks, so that they can be committed again. Keep all other masks.

        Args:
            damage: the result of `verify`.
            content: the content with which the store was created; needed if weights or inputs are
                damaged.

        Raises:
            UserError: weights or inputs are damaged, and `content` is None.
            OSError: for example, the disk is full; call verify and repair again later.
        """
        self._committed = None
        self._files.repair(damage, content)

    def _check_commit(self, unit: str, tasks: pa.Table, rows: np.ndarray) -> None:
        """Check the arguments of a commit, without reading the log."""
        if not unit or Path(unit).name != unit or unit.startswith("."):
            raise ValueError(f"unit must be a name for a visible file, got {unit!r}")
        if {*tasks.column_names, "row_crc32c"} != set(TASKS.names):
            raise ValueError(f"tasks must have the columns {TASKS.names}, got {tasks.column_names}")
        if rows.dtype != np.uint8:
            raise ValueError(f"rows must have dtype uint8, got {rows.dtype}")
        check_shape("rows", rows.shape, (len(tasks), self._row_bytes), "B R")
        if rows[:, -1].any():
            raise ValueError("rows must end with a guard byte of value 0, got another value")

    def _check_new(self, task_ids: np.ndarray) -> None:
        """Check that every task number is in range, occurs once, and is not committed yet."""
        check_range(task_ids, self._capacity)
        if len(np.unique(task_ids)) < len(task_ids):
            raise ValueError(f"task_id must name each task once, got {task_ids.tolist()}")
        known = np.sort(task_ids[self._known()[task_ids]])
        if len(known):
            raise ValueError(f"tasks {known.tolist()} are committed already")

    def _known(self) -> np.ndarray:
        """Return a (capacity,) bool array that says which tasks are committed.

        Read the log if this was not done yet.
        """
        if self._committed is None:
            self.tasks(["task_id"])
        assert self._committed is not None
        return self._committed

    def _write_rows(self, task_ids: np.ndarray, rows: np.ndarray) -> None:
        """Write masks into their chunks. The masks do not exist until the log names them."""
        chunks, places = np.divmod(task_ids, self._chunks.rows)
        for chunk in np.unique(chunks).tolist():
            here = chunks == chunk
            content = self._chunks.read_for_change(chunk)
            content[places[here]] = rows[here]
            self._chunks.write(chunk, content)

    def _write_log(self, unit: str, table: pa.Table) -> None:
        """Write a new log file. The masks of its tasks exist as soon as this file exists.

        Ctrl-C and SIGTERM may end the driver at any moment. Before this file exists, none of its
        tasks is committed. When it exists, all their masks are on disk.
        """
        for n in count(1):  # after a repair, a log file of this unit may exist with other tasks
            path = self._log / f"{unit}{'' if n == 1 else f'-{n}'}.parquet"
            try:
                create_table_file(table, path, self._run_id)
                return
            except FileExistsError:
                continue
