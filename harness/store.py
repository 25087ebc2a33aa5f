"""The mask store: packed masks in Zarr, and the log that says which of them exist.

A row of `masks.zarr/masks` is a mask once a file of `log/` names its task and its
CRC-32C; until then it does not exist, whatever its bytes are. One process writes, under
the lock of harness/lock.py; any number may read. Zarr makes the arrays and anyone with
plain zarr reads them, but chunks of masks are read and written here as files: that is
how one bad row is told from its chunk, and how a chunk is on disk before it replaces the
old one, which holds masks already committed.

Shape letters: B masks of a commit or a read, R bytes of a row.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from math import log2
from pathlib import Path
from typing import Any, cast

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zarr
from jaxtyping import UInt8
from zarr.codecs import Crc32cCodec

from harness.errors import UserError
from harness.results import (
    TASKS,
    create_table_file,
    fsync,
    read_table_file,
    read_tables,
    table_files,
    write_durably,
    write_table,
)
from supsup_core.arrays import check_shape
from supsup_core.masks import MaskLayout
from supsup_core.networks import Layer

FORMAT_VERSION = 1
CHUNK_BYTES = 2_500_000  # about: chunks hold a power of two of rows
FILL = 255  # every byte of a row never written; the last byte of a mask is 0
CRC_BYTES = 4  # zarr's crc32c codec puts them, little-endian, behind the data
CODECS = (Crc32cCodec(),)  # after "bytes": no compression, masks of density 1/2 have no slack


class CorruptMask(Exception):  # noqa: N818 - a finding about data, not a fault of the caller
    """Stored bytes that do not match their checksum: names the tasks and the file."""


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


def chunk_rows(row_bytes: int) -> int:
    """Rows of a chunk: the power of two that comes nearest to CHUNK_BYTES."""
    return int(2 ** max(0, round(log2(CHUNK_BYTES / row_bytes))))


def _crc32c(data: np.ndarray) -> int:
    return cast(int, google_crc32c.value(data))


def _write_fixed(
    root: zarr.Group,
    layout: MaskLayout,
    weights: Sequence[np.ndarray],
    inputs: Mapping[str, np.ndarray],
) -> None:
    """Write what never changes, over what may be there: `weights/...` and `inputs/...`."""
    arrays = {f"inputs/{name}": array for name, array in inputs.items()}
    for layer, weight in zip(layout.layers, weights, strict=True):
        check_shape(f"weights of {layer.name}", weight.shape, layer.shape, "O I")
        arrays[f"weights/{layer.name}"] = weight.astype(np.float32)
    for name, array in arrays.items():
        rows = min(len(array), chunk_rows(array[0].nbytes))
        root.create_array(
            name,
            data=array,
            chunks=(rows, *array.shape[1:]),
            compressors=CODECS,
            # a chunk left out because it holds only the fill value would look lost
            config={"write_empty_chunks": True},
            overwrite=True,
        )


def _fsync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        fsync(path)


class MaskStore:
    """The masks of one run directory. Made by `create` or `open`."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._root = run_dir / "masks.zarr"
        self._log = run_dir / "log"
        if not self._root.is_dir():
            raise UserError(f"{run_dir} must be the directory of a run, got no masks.zarr in it")
        try:
            root = zarr.open_group(self._root, mode="r", zarr_format=3, use_consolidated=False)
            self._attributes = dict(root.attrs)
            masks = cast(zarr.Array[Any], root["masks"])
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            raise UserError(f"{self._root} must be a Zarr group with an array masks") from error
        version = self._attributes.get("format_version")
        if version != FORMAT_VERSION:
            raise UserError(
                f"{self._root} must have format_version {FORMAT_VERSION}, got {version}: "
                "use the version of this program that wrote it"
            )
        layers = cast(list[dict[str, Any]], self._attributes["layers"])
        self._layout = MaskLayout(
            tuple(Layer(layer["name"], (layer["shape"][0], layer["shape"][1])) for layer in layers),
            tuple(layer["byte_offset"] for layer in layers),
            cast(int, self._attributes["row_bytes"]),
        )
        self._capacity = masks.shape[0]
        self._chunk_rows = masks.chunks[0]
        self._num_chunks = -(-self._capacity // self._chunk_rows)
        self._committed: set[int] | None = None  # of this writer; read from the log when needed

    @classmethod
    def create(
        cls,
        run_dir: Path,
        *,
        layout: MaskLayout,
        weights: Sequence[np.ndarray],
        inputs: Mapping[str, np.ndarray],
        capacity: int,
        attributes: Mapping[str, Any],
    ) -> "MaskStore":
        """Make an empty store: all of it, or after a crash none of it.

        Args:
            run_dir: where `masks.zarr` and `log` go; made if missing.
            layout: of a packed row.
            weights: the fixed network, (O, I) for each layer; kept as float32.
            inputs: what makes each task, by name; first axis: tasks.
            capacity: tasks that there may be.
            attributes: of the group, JSON values: network, activation, normalisation,
                family, seed, method, config_hash, versions, ...

        Raises:
            FileExistsError: there is a store.
            UserError: there is a log, but no store.
            ValueError: no capacity, weights of another shape than their layer, or an
                attribute that the layout sets.
        """
        final, partial = run_dir / "masks.zarr", run_dir / ".masks.zarr.partial"
        if final.exists():
            raise FileExistsError(f"{final} exists")
        if table_files(run_dir / "log"):
            raise UserError(
                f"{run_dir} has the log of a run but not its masks.zarr: "
                "put masks.zarr back, or choose another run_dir"
            )
        if capacity < 1:
            raise ValueError(f"capacity must be >= 1, got {capacity}")
        own = {
            "format_version": FORMAT_VERSION,
            "layers": [
                {
                    "name": layer.name,
                    "shape": list(layer.shape),
                    "byte_offset": offset,
                    "num_bits": layer.num_weights,
                }
                for layer, offset in zip(layout.layers, layout.byte_offsets, strict=True)
            ],
            "bit_order": "little",
            "row_bytes": layout.row_bytes,
        }
        if clash := own.keys() & attributes.keys():
            raise ValueError(f"attributes must not name {sorted(clash)}: the layout sets them")

        if partial.exists():
            shutil.rmtree(partial)  # of a create that crashed
        (run_dir / "log").mkdir(parents=True, exist_ok=True)
        root = zarr.create_group(partial, zarr_format=3, attributes={**own, **attributes})
        root.create_array(
            "masks",
            shape=(capacity, layout.row_bytes),
            dtype="uint8",
            chunks=(chunk_rows(layout.row_bytes), layout.row_bytes),
            fill_value=FILL,
            compressors=CODECS,
        )
        _write_fixed(root, layout, weights, inputs)
        _fsync_tree(partial)
        partial.rename(final)
        fsync(run_dir)
        return cls(run_dir)

    @classmethod
    def open(cls, run_dir: Path, *, read_only: bool = False) -> "MaskStore":
        """Open the store of a run.

        Args:
            run_dir: of the run.
            read_only: leave every file alone; otherwise hold run_lock: the unfinished
                files of a writer that crashed are removed.

        Raises:
            UserError: no store, or one of an unknown format.
        """
        store = cls(run_dir)
        if not read_only:
            for folder in (store._root, store._log):
                for path in folder.rglob("*.partial"):
                    path.unlink()
        return store

    @property
    def layout(self) -> MaskLayout:
        """Of a packed row."""
        return self._layout

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
            tasks: columns of results.TASKS, one row a mask; row_crc32c is set here.
            rows: packed masks, in the order of `tasks`.

        Returns:
            `tasks` as the log has it, with checksums.

        Raises:
            ValueError: a task beyond the capacity, twice, or committed already; rows of
                another shape, or that are no masks; other columns; no name for a file.
            CorruptMask: a chunk that these rows go to is damaged.
            OSError: disk full and the like; nothing is committed, and may be again later.
        """
        if not unit or Path(unit).name != unit or unit.startswith("."):
            raise ValueError(f"unit must be a name for a visible file, got {unit!r}")
        if {*tasks.column_names, "row_crc32c"} != set(TASKS.names):
            raise ValueError(f"tasks must have the columns {TASKS.names}, got {tasks.column_names}")
        if rows.dtype != np.uint8:
            raise ValueError(f"rows must have dtype uint8, got {rows.dtype}")
        check_shape("rows", rows.shape, (len(tasks), self._layout.row_bytes), "B R")
        if rows[:, -1].any():
            raise ValueError("rows must end with a zero guard byte, got another value")
        task_ids = tasks["task_id"].to_numpy()
        self._check_range(task_ids)
        if len(np.unique(task_ids)) < len(task_ids):
            raise ValueError(f"task_id must name each task once, got {task_ids.tolist()}")
        if self._committed is None:
            self._committed = set(self.tasks()["task_id"].to_pylist())
        if known := self._committed.intersection(task_ids.tolist()):
            raise ValueError(f"tasks {sorted(known)} are committed already")

        rows = np.ascontiguousarray(rows)
        crcs = pa.array([_crc32c(row) for row in rows], pa.uint32())
        columns = {name: tasks[name] for name in TASKS.names if name != "row_crc32c"}
        table = pa.table({**columns, "row_crc32c": crcs}, schema=TASKS)

        chunks, places = np.divmod(task_ids, self._chunk_rows)
        for chunk in np.unique(chunks).tolist():
            here = chunks == chunk
            content = self._read_chunk(chunk)
            content[places[here]] = rows[here]
            self._write_chunk(chunk, content)

        for n in count(1):  # a repair may have left a file of this unit, without these tasks
            try:
                create_table_file(table, self._log / f"{unit}{'' if n == 1 else f'-{n}'}.parquet")
                break
            except FileExistsError:
                continue
        self._committed.update(task_ids.tolist())
        return table

    def tasks(self) -> pa.Table:
        """The table `tasks`: the masks that exist, by task_id; one snapshot of the log.

        Raises:
            ValueError: a broken file in the log; see verify and repair.
        """
        return read_tables(self._log, TASKS).sort_by("task_id")

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
        self._check_range(ids)
        rows = np.zeros((len(ids), self._layout.row_bytes), np.uint8)
        chunks, places = np.divmod(ids, self._chunk_rows)
        for chunk in np.unique(chunks).tolist():
            path = self._chunk_path(chunk)
            here = np.flatnonzero(chunks == chunk)
            try:
                with path.open("rb", buffering=0) as file:
                    for i in here:
                        file.seek(places[i] * self._layout.row_bytes)
                        # short at the end of a truncated file: then the checksum differs
                        file.readinto(rows[i].data)
            except FileNotFoundError as error:
                raise CorruptMask(f"tasks {ids[here].tolist()}: {path} is missing") from error
            for i in here:
                if _crc32c(rows[i]) != expected[i]:
                    raise CorruptMask(
                        f"task {ids[i]}: its mask in {path} does not match its checksum"
                    )
        return rows

    def verify(self) -> list[Damage]:
        """Check every committed mask, every chunk, the fixed arrays and the log.

        Returns:
            what is not as it was written, for `repair`; [] if all is well. A damaged
            mask is named alone, not with its chunk. Tasks that only a broken file of the
            log names are not in any `task_ids`: they no longer exist.

        Raises:
            OSError: a file that is there but cannot be read.
        """
        log, damage = self._verify_log()
        task_ids, crcs = log["task_id"].to_numpy(), log["row_crc32c"].to_numpy()
        chunks = task_ids // self._chunk_rows
        for chunk in range(self._num_chunks):
            here = chunks == chunk
            damage += self._verify_chunk(chunk, task_ids[here].tolist(), crcs[here].tolist())
        return damage + self._verify_fixed()

    def repair(
        self,
        damage: Sequence[Damage],
        *,
        weights: Sequence[np.ndarray] | None = None,
        inputs: Mapping[str, np.ndarray] | None = None,
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
        paths = {self._run_dir / finding.path for finding in damage}
        lost = {task_id for finding in damage for task_id in finding.task_ids}

        broken = sorted(name for name in self._fixed_names() if self._root / name in paths)
        if broken:
            if weights is None or inputs is None:
                raise UserError(
                    f"{self._root / broken[0]} is damaged: copy it from another run of the same "
                    "configuration, or choose another run_dir"
                )
            root = zarr.open_group(self._root, mode="r+", use_consolidated=False)
            _write_fixed(root, self._layout, weights, inputs)
            _fsync_tree(self._root)

        # The log before the chunks: after a crash between them the masks are forgotten, and
        # the chunk is found again, as damage that costs nothing.
        self._committed = None
        for path in table_files(self._log):
            if path in paths:
                path.rename(path.with_name(f"{path.name}.broken"))
                continue
            table = self._read_log_file(path)
            kept = table.filter(pc.invert(pc.is_in(table["task_id"], pa.array(lost, pa.int64()))))
            if 0 < len(kept) < len(table):
                write_table(kept, path)
            elif len(kept) < len(table):
                path.unlink()
        fsync(self._log)

        committed = self.tasks()["task_id"].to_numpy()
        for chunk in range(self._num_chunks):
            first = chunk * self._chunk_rows
            last = first + self._chunk_rows
            if self._chunk_path(chunk) in paths or any(first <= i < last for i in lost):
                old = self._examine_chunk(chunk)[1]
                new = np.full((self._chunk_rows, self._layout.row_bytes), FILL, np.uint8)
                if old is not None:
                    places = committed[(committed >= first) & (committed < last)] - first
                    new[places] = old[places]
                self._write_chunk(chunk, new)

    def _verify_log(self) -> tuple[pa.Table, list[Damage]]:
        """The rows of the files that can be read, and what is wrong with the log."""
        tables, damage = [TASKS.empty_table()], []
        for path in table_files(self._log):
            try:
                tables.append(self._read_log_file(path))
            except ValueError:
                reason = "is not a whole Parquet file of the table tasks"
                damage.append(Damage(self._name(path), (), reason))
        log = pa.concat_tables(tables)
        values, counts = np.unique(log["task_id"].to_numpy(), return_counts=True)
        if twice := values[counts > 1].tolist():
            damage.append(Damage(self._name(self._log), tuple(twice), "names tasks more than once"))
        return log, damage

    def _verify_chunk(self, chunk: int, task_ids: list[int], crcs: list[int]) -> list[Damage]:
        """Check a chunk, and the masks in it that the log names."""
        reason, rows = self._examine_chunk(chunk)
        if rows is None and not task_ids:
            return []  # nothing was ever written there
        bad = {
            task_id
            for task_id, crc in zip(task_ids, crcs, strict=True)
            if rows is None or _crc32c(rows[task_id % self._chunk_rows]) != crc
        }
        if not bad and not reason:
            return []
        # a bad row in a chunk with a good checksum: an older copy of the file, say
        reason = reason or "does not match the log"
        return [Damage(self._name(self._chunk_path(chunk)), tuple(sorted(bad)), reason)]

    def _verify_fixed(self) -> list[Damage]:
        """Check the weights and inputs, by the checksums of their chunks."""
        damage = []
        root = zarr.open_group(self._root, mode="r", use_consolidated=False)
        for name in self._fixed_names():
            try:
                array = cast(zarr.Array[Any], root[name])
                array[...]
                lost = array.nchunks - array.nchunks_initialized  # zarr reads these as zeros
            except Exception:  # whatever zarr makes of the bytes: the array cannot be read
                lost = 1
            if lost:
                reason = "is missing or does not match its checksums"
                damage.append(Damage(self._name(self._root / name), (), reason))
        return damage

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._run_dir))

    def _check_range(self, task_ids: np.ndarray) -> None:
        beyond = task_ids[(task_ids < 0) | (task_ids >= self._capacity)]
        if len(beyond):
            raise ValueError(
                f"task_id must be >= 0 and < capacity {self._capacity}, got {beyond.tolist()}"
            )

    def _read_log_file(self, path: Path) -> pa.Table:
        table = read_table_file(path, TASKS)
        self._check_range(table["task_id"].to_numpy())
        return table

    def _fixed_names(self) -> list[str]:
        inputs = sorted(path.name for path in self._root.glob("inputs/*") if path.is_dir())
        return [
            *(f"weights/{layer.name}" for layer in self._layout.layers),
            *(f"inputs/{name}" for name in inputs),
        ]

    def _chunk_path(self, chunk: int) -> Path:
        return self._root / "masks" / "c" / str(chunk) / "0"

    def _examine_chunk(self, chunk: int) -> tuple[str, np.ndarray | None]:
        """What is wrong with a chunk's file, "" if nothing; and its rows, None if missing.

        The rows are uint8 (rows of a chunk, R), filled up where the file is too short.
        """
        try:
            raw = np.fromfile(self._chunk_path(chunk), np.uint8)
        except FileNotFoundError:
            return "is missing", None
        shape = (self._chunk_rows, self._layout.row_bytes)
        size = shape[0] * shape[1]
        if len(raw) != size + CRC_BYTES:
            rows = np.full(size, FILL, np.uint8)
            rows[: len(raw)] = raw[:size]
            reason = f"must have {size + CRC_BYTES} bytes, got {len(raw)}"
            return reason, rows.reshape(shape)
        rows = raw[:size]
        intact = _crc32c(rows) == int.from_bytes(raw[size:].tobytes(), "little")
        return "" if intact else "does not match its checksum", rows.reshape(shape)

    def _read_chunk(self, chunk: int) -> np.ndarray:
        """The rows of a chunk, to be changed: refuses to build on a damaged one."""
        reason, rows = self._examine_chunk(chunk)
        if rows is None:
            return np.full((self._chunk_rows, self._layout.row_bytes), FILL, np.uint8)
        if reason:
            raise CorruptMask(f"{self._chunk_path(chunk)} {reason}")
        return rows

    def _write_chunk(self, chunk: int, rows: np.ndarray) -> None:
        path = self._chunk_path(chunk)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, rows.tobytes() + _crc32c(rows).to_bytes(CRC_BYTES, "little"))
        for folder in (path.parents[1], path.parents[2]):  # the first chunk makes masks/c
            fsync(folder)
