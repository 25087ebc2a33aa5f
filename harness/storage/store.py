"""The mask store: packed masks in Zarr, and the log that says which of them exist.

A row of `masks.zarr/masks` is a mask once a file of `log/` names its task and its
CRC-32C; until then it does not exist, whatever its bytes are. One process writes, under
the lock of harness/storage/lock.py; any number may read. Zarr makes the arrays and anyone with
plain zarr reads them, but chunks of masks are read and written here as files: see
harness/storage/chunks.py. harness/storage/repair.py says what is damaged.

Shape letters: B masks of a commit or a read, R bytes of a row.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import pyarrow as pa
import zarr
from jaxtyping import UInt8

from harness.errors import UserError
from harness.places.durable import fsync
from harness.places.places import Place, relative, remove_tree
from harness.storage.attributes import check_format, difference, fixed_arrays, group_attributes
from harness.storage.chunks import FILL, ChunkFiles, CorruptMask, chunk_rows, crc32c
from harness.storage.repair import (
    CODECS,
    Damage,
    Rows,
    StoreFiles,
    check_range,
    fsync_tree,
    open_group,
    write_fixed,
)
from harness.tables.files import create_table_file, read_tables, table_files
from harness.tables.schemas import TASKS
from supsup_core.arrays import check_shape
from supsup_core.states.layout import StateLayout

__all__ = ["CorruptMask", "Damage", "MaskStore", "check_store", "chunk_rows"]


# Of one commit: a driver that is behind would else spend its time on flushes, and every later
# start on opening files.
_LOG_FILES_AT_ONCE = 8

_GROUP = "zarr.json"  # the group's own file


def _open_group(path: Place) -> tuple[dict[str, Any], zarr.Array[Any]]:
    """The attributes of a store's group, and its array `masks`."""
    if not path.is_dir():
        raise UserError(f"{path.parent} must be the directory of a run, got no masks.zarr in it")
    try:
        root = open_group(path, "r")
        return dict(root.attrs), cast(zarr.Array[Any], root["masks"])
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        raise UserError(f"{path} must be a Zarr group with an array masks") from error


def store_exists(run_dir: Place) -> bool:
    """Whether a run has a store, whatever it is like; see MaskStore.create."""
    root = run_dir / "masks.zarr"
    return (root if isinstance(root, Path) else root / _GROUP).exists()


def _check_absent(run_dir: Place) -> None:
    if store_exists(run_dir):
        raise FileExistsError(f"{run_dir / 'masks.zarr'} exists")
    if table_files(run_dir / "log"):
        raise UserError(
            f"{run_dir} has the log of a run but not its masks.zarr: "
            "put masks.zarr back, or choose another run_dir"
        )


def create_masks(root: zarr.Group, capacity: int, row_bytes: int) -> zarr.Array[Any]:
    """Make the array `masks`, without any chunk."""
    return root.create_array(
        "masks",
        shape=(capacity, row_bytes),
        dtype="uint8",
        chunks=(chunk_rows(row_bytes), row_bytes),
        fill_value=FILL,
        compressors=CODECS,
    )


def check_store(
    run_dir: Place, *, layout: StateLayout, capacity: int, attributes: Mapping[str, Any]
) -> None:
    """Check that the store of a run is the one that `create` would make now.

    Args:
        run_dir: of the run; its files are left alone.
        layout: as for MaskStore.create.
        capacity: likewise.
        attributes: likewise; `versions` and `config_hash` may differ, for they say what the run
            began with.

    Raises:
        UserError: no store, one of an unknown format, or a difference: the first one.
    """
    path = run_dir / "masks.zarr"
    stored, masks = _open_group(path)
    check_format(path, stored)
    expected = group_attributes(layout, attributes)
    file, found = path / _GROUP, difference(stored, expected, but=("versions", "config_hash"))
    if not found:
        file = path / "masks" / _GROUP
        found = difference({"shape": masks.shape}, {"shape": (capacity, layout.row_bytes)})
    if found:
        raise UserError(
            f"{file} must have {found}: put {relative(file, run_dir)} and config.yaml back as "
            "they were, or choose another run_dir"
        )


def _check_weights(layout: StateLayout, weights: Mapping[str, np.ndarray]) -> None:
    for tensor in layout.tensors:
        if tensor.over == "weights":
            check_shape(f"weights/{tensor.source}", weights[tensor.source].shape, tensor.shape, "…")


def _with_checksums(tasks: pa.Table, rows: np.ndarray) -> pa.Table:
    """Rows of the log."""
    crcs = pa.array([crc32c(np.ascontiguousarray(row)) for row in rows], pa.uint32())
    columns = {name: tasks[name] for name in TASKS.names if name != "row_crc32c"}
    return pa.table({**columns, "row_crc32c": crcs}, schema=TASKS)


class MaskStore:
    """The masks of one run directory. Made by `create` or `open`."""

    def __init__(self, run_dir: Place) -> None:
        self._root = run_dir / "masks.zarr"
        self._log = run_dir / "log"
        self._attributes, masks = _open_group(self._root)
        check_format(self._root, self._attributes)
        self._row_bytes = int(self._attributes["row_bytes"])
        self._capacity = masks.shape[0]
        self._chunks = ChunkFiles(self._root / "masks", masks.chunks[0], self._row_bytes)
        self._files = StoreFiles(
            run_dir, fixed_arrays(self._attributes), self._capacity, self._chunks
        )
        # Of this writer, a flag a task; read from the log when needed.
        self._committed: np.ndarray | None = None

    @classmethod
    def create(
        cls,
        run_dir: Place,
        *,
        layout: StateLayout,
        weights: Mapping[str, np.ndarray],
        inputs: Mapping[str, Rows],
        capacity: int,
        attributes: Mapping[str, Any],
    ) -> "MaskStore":
        """Make an empty store: all of it, or after a crash none of it.

        Args:
            run_dir: where `masks.zarr` and `log` go; made if missing.
            layout: of a packed row.
            weights: the fixed network, by source; kept as float32.
            inputs: what makes each task, by name; first axis: tasks.
            capacity: tasks that there may be.
            attributes: of the group, JSON values: network, activation, normalisation,
                family, seed, method, config_hash, versions, ...

        Raises:
            FileExistsError: there is a store.
            UserError: there is a log, but no store.
            ValueError: no capacity, weights of another shape than the gains that multiply
                them, or an attribute that the layout sets.
        """
        _check_absent(run_dir)
        if capacity < 1:
            raise ValueError(f"capacity must be >= 1, got {capacity}")
        _check_weights(layout, weights)
        everything = group_attributes(layout, attributes)

        def build(folder: Path) -> None:
            root = zarr.create_group(folder, zarr_format=3, attributes=everything)
            create_masks(root, capacity, layout.row_bytes)
            write_fixed(root, weights, inputs)

        if isinstance(run_dir, Path):
            partial = run_dir / ".masks.zarr.partial"
            if partial.exists():
                remove_tree(partial)  # of a create that crashed
            (run_dir / "log").mkdir(parents=True, exist_ok=True)
            build(partial)
            fsync_tree(partial)
            partial.rename(run_dir / "masks.zarr")
            fsync(run_dir)
        else:
            remove_tree(run_dir / "masks.zarr")  # of a create that crashed
            with TemporaryDirectory() as built:
                build(Path(built))
                # Objects have no rename: there is a store once its group's own file is there.
                (run_dir / "masks.zarr").upload(Path(built), last=_GROUP)
        return cls(run_dir)

    @classmethod
    def open(cls, run_dir: Place, *, read_only: bool = False) -> "MaskStore":
        """Open the store of a run.

        Args:
            run_dir: of the run.
            read_only: leave every file alone; otherwise hold run_lock: the unfinished
                files of a writer that crashed are removed.

        Raises:
            UserError: no store, or one of an unknown format.
        """
        store = cls(run_dir)
        if not read_only and isinstance(run_dir, Path):
            for folder in (run_dir / "masks.zarr", run_dir / "log"):
                for path in folder.rglob("*.partial"):
                    path.unlink()
        return store

    @property
    def row_bytes(self) -> int:
        """R."""
        return self._row_bytes

    @property
    def capacity(self) -> int:
        """Tasks that there may be."""
        return self._capacity

    @property
    def attributes(self) -> dict[str, Any]:
        """Of the group: the layout's and those given to `create`."""
        return dict(self._attributes)

    def commit(self, unit: str, tasks: pa.Table, rows: UInt8[np.ndarray, "B R"]) -> pa.Table:
        """Store the masks of a work unit: on disk, all of them, once this returns.

        Args:
            unit: name of the work unit, and of its file in the log.
            tasks: columns of tables.schemas.TASKS, one row a mask; row_crc32c is set here.
            rows: packed masks, in the order of `tasks`.

        Returns:
            `tasks` as the log has it, with checksums.

        Raises:
            ValueError: a task beyond the capacity, twice, or committed already; rows of
                another shape, or that are no masks; other columns; no name for a file.
            CorruptMask: a chunk that these rows go to is damaged.
            OSError: disk full and the like; nothing is committed, and may be again later.
        """
        return self.commit_together([(unit, tasks, rows)])

    def commit_together(
        self, units: Sequence[tuple[str, pa.Table, UInt8[np.ndarray, "B R"]]]
    ) -> pa.Table:
        """Store the masks of some work units: each chunk is written once, for them all.

        Each has its own file of the log, up to 8 of them; of more, some share a file.

        Args:
            units: at least one; of each what `commit` takes.

        Returns:
            their `tasks` as the log has them, one after another.

        Raises:
            as commit; an OSError may leave the first of the units committed.
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
        """The table `tasks`: the masks that exist, by task_id; one snapshot of the log.

        Args:
            columns: to have, task_id among them.

        Raises:
            ValueError: a broken file in the log, or one that names a task beyond the capacity;
                see verify and repair.
        """
        table = read_tables(self._log, TASKS, columns).sort_by("task_id")
        task_ids = table["task_id"].to_numpy()
        check_range(task_ids, self._capacity)
        self._committed = np.zeros(self._capacity, bool)
        self._committed[task_ids] = True
        return table

    def read(
        self, task_ids: Sequence[int] | np.ndarray, crcs: Sequence[int] | np.ndarray
    ) -> UInt8[np.ndarray, "B R"]:
        """Read masks.

        Args:
            task_ids: which, in any order.
            crcs: row_crc32c of each, from the same snapshot of the log.

        Returns:
            packed rows, in the order of `task_ids`, each with the checksum asked for.

        Raises:
            CorruptMask: a row that is missing or has another checksum.
            ValueError: a task beyond the capacity; more or fewer checksums than tasks.
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
        """Check every committed mask, every chunk, the fixed arrays and the log.

        Args:
            fixed: names that there must be of fixed arrays ("weights/layer1",
                "inputs/permutations"), beside those that are there.

        Returns:
            what is not as it was written, for `repair`; [] if all is well. A damaged
            mask is named alone, not with its chunk. Tasks that only a broken file of the
            log names are not in any `task_ids`: they no longer exist.

        Raises:
            OSError: a file that is there but cannot be read.
        """
        return self._files.verify(fixed)

    def repair(
        self,
        damage: Sequence[Damage],
        *,
        weights: Mapping[str, np.ndarray] | None = None,
        inputs: Mapping[str, Rows] | None = None,
    ) -> None:
        """Forget the damaged masks, so that they can be committed again; no others change.

        Args:
            damage: what `verify` found.
            weights: as given to `create`; needed where a fixed array is damaged.
            inputs: likewise.

        Raises:
            UserError: a fixed array is damaged, and weights and inputs were not given.
            OSError: disk full and the like; verify and repair again later.
        """
        self._committed = None
        self._files.repair(damage, weights, inputs)

    def _check_commit(self, unit: str, tasks: pa.Table, rows: np.ndarray) -> None:
        """Check the form of what is to be committed."""
        if not unit or Path(unit).name != unit or unit.startswith("."):
            raise ValueError(f"unit must be a name for a visible file, got {unit!r}")
        if {*tasks.column_names, "row_crc32c"} != set(TASKS.names):
            raise ValueError(f"tasks must have the columns {TASKS.names}, got {tasks.column_names}")
        if rows.dtype != np.uint8:
            raise ValueError(f"rows must have dtype uint8, got {rows.dtype}")
        check_shape("rows", rows.shape, (len(tasks), self._row_bytes), "B R")
        if rows[:, -1].any():
            raise ValueError("rows must end with a zero guard byte, got another value")

    def _check_new(self, task_ids: np.ndarray) -> None:
        """Check that these tasks may be committed, each once."""
        check_range(task_ids, self._capacity)
        if len(np.unique(task_ids)) < len(task_ids):
            raise ValueError(f"task_id must name each task once, got {task_ids.tolist()}")
        known = np.sort(task_ids[self._known()[task_ids]])
        if len(known):
            raise ValueError(f"tasks {known.tolist()} are committed already")

    def _known(self) -> np.ndarray:
        """Whether each task is committed."""
        if self._committed is None:
            self.tasks(["task_id"])
        assert self._committed is not None
        return self._committed

    def _write_rows(self, task_ids: np.ndarray, rows: np.ndarray) -> None:
        """Put masks into their chunks, where nothing names them yet."""
        chunks, places = np.divmod(task_ids, self._chunks.rows)
        for chunk in np.unique(chunks).tolist():
            here = chunks == chunk
            content = self._chunks.read_for_change(chunk)
            content[places[here]] = rows[here]
            self._chunks.write(chunk, content)

    def _write_log(self, unit: str, table: pa.Table) -> None:
        """Make masks exist: one new file of the log."""
        for n in count(1):  # a repair may have left a file of this unit, without these tasks
            try:
                create_table_file(table, self._log / f"{unit}{'' if n == 1 else f'-{n}'}.parquet")
                return
            except FileExistsError:
                continue
