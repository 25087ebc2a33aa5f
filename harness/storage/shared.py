"""The arrays `shared/NAME` of a mask store, which tasks train together or pass on to later tasks.

The values of these arrays change with each task, and cannot be computed from the masks. The store
keeps copies of them. The attribute `after_task` lists the tasks after which a copy is kept:
`shared/NAME[i]` is the array NAME as it was when the training of task `after_task[i]` had ended.
These values are called the data after the task. They are written before the log names the task. If
the log does not name the task, the bytes mean nothing.

An array of bool is stored as bits: `shared/NAME[i]` then has one axis of uint8. The values are in C
order, and the first value is in the lowest bit of a byte.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from harness.places.places import Place
from harness.storage.chunks import ChunkFiles, CorruptMask

_FLOAT = np.dtype("<f4")
_FLOATS, _BITS = "float32", "bits"  # values of the attribute "type" of an array


@dataclass(frozen=True)
class SharedSpec:
    """The description of a store's shared arrays.

    Attributes:
        shapes: a mapping from name to the shape of an array; empty if the run shares nothing.
        after_task: the tasks after which the arrays are kept, in ascending order.
        bits: names of the arrays of bool. All other arrays are float32.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    after_task: Sequence[int] = ()
    bits: frozenset[str] = frozenset()

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of the store's group, a mapping from name to JSON value."""
        if not self.shapes:
            return {}
        arrays = [
            {"name": name, "shape": list(shape), "type": _BITS if name in self.bits else _FLOATS}
            for name, shape in self.shapes.items()
        ]
        return {"shared": arrays, "after_task": list(self.after_task)}

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> "SharedSpec":
        """Read the description from the attributes of a store's group."""
        arrays = attributes.get("shared", [])
        shapes = {one["name"]: tuple(one["shape"]) for one in arrays}
        bits = frozenset(one["name"] for one in arrays if one["type"] == _BITS)
        return cls(shapes, tuple(attributes.get("after_task", ())), bits)

    def stored(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return the shape and the type in which the store keeps an array after one task."""
        shape = tuple(self.shapes[name])
        if name in self.bits:
            return (-(-prod(shape) // 8),), np.dtype(np.uint8)
        return shape, _FLOAT

    @property
    def num_bytes(self) -> int:
        """The size of all arrays in bytes."""
        each = [prod(shape) * kind.itemsize for shape, kind in map(self.stored, self.shapes)]
        return sum(each) * len(self.after_task)


class SharedFiles:
    """The chunk files of a store's shared arrays: one chunk per array and kept task.

    Args:
        root: the folder masks.zarr.
        spec: the description of the arrays.

    Attributes:
        spec: the description of the arrays.
    """

    def __init__(self, root: Place, spec: SharedSpec) -> None:
        self.spec = spec
        self._chunks = {}
        for name in spec.shapes:
            shape, kind = spec.stored(name)
            self._chunks[name] = ChunkFiles(
                root / "shared" / name, 1, kind.itemsize * prod(shape), num_axes=1 + len(shape)
            )
        self._intact: dict[int, bool] = {}  # task -> whether all its chunks were found intact

    def keeps(self, task: int) -> bool:
        """Return whether the store must have the data after a task."""
        return bool(self._chunks) and task in self.spec.after_task

    def has(self, task: int) -> bool:
        """Return whether the store has the data after a task, and every chunk is intact."""
        if not self.keeps(task):
            return False
        if task not in self._intact:
            self._intact[task] = not self._broken(task)
        return self._intact[task]

    def lacking(self, committed: Container[int]) -> list[int]:
        """List the committed tasks whose data the store must have, but does not have intact."""
        return [i for i in self.spec.after_task if i in committed and not self.has(i)]

    def read(self, task: int) -> dict[str, np.ndarray]:
        """Read the data after a task: a mapping from name to array.

        Raises:
            CorruptMask: the store keeps no data after this task, or a chunk is missing or damaged.
        """
        if not self.keeps(task):
            raise CorruptMask(f"the data after task {task} are not kept in the store")
        found = {}
        for name, chunks in self._chunks.items():
            reason, row = chunks.examine(self._place(task))
            if reason or row is None:
                raise CorruptMask(f"{chunks.path(self._place(task))} {reason}")
            found[name] = self._decoded(name, row.reshape(-1))
        return found

    def write(self, task: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep the data after a task. When this method returns, they are on disk.

        Args:
            task: the task, one of `spec.after_task`.
            arrays: a mapping from name to array.

        Raises:
            OSError: for example, the disk is full.
        """
        for name, chunks in self._chunks.items():
            chunks.write(self._place(task), self._encoded(name, arrays[name]))
        self._intact[task] = True

    def damaged(self, committed: Container[int]) -> list[tuple[Place, str]]:
        """List the missing or damaged chunks of committed tasks, each with the reason."""
        self._intact.clear()
        return [
            found
            for task in self.spec.after_task
            if task in committed
            for found in self._broken(task)
        ]

    def remove(self, paths: Container[Place]) -> None:
        """Remove damaged chunk files, so that the data are computed again."""
        self._intact.clear()
        for chunks in self._chunks.values():
            for place in range(len(self.spec.after_task)):
                if (path := chunks.path(place)) in paths and path.exists():
                    path.unlink()

    def _decoded(self, name: str, stored: np.ndarray) -> np.ndarray:
        """Make an array from the bytes that the store keeps."""
        shape = tuple(self.spec.shapes[name])
        if name not in self.spec.bits:
            return stored.view(_FLOAT).reshape(shape).copy()
        bits = np.unpackbits(stored, count=prod(shape), bitorder="little")
        return bits.view(np.bool_).reshape(shape)

    def _encoded(self, name: str, array: np.ndarray) -> np.ndarray:
        """Make the bytes that the store keeps of an array, in one row."""
        assert np.shape(array) == tuple(self.spec.shapes[name])
        if name in self.spec.bits:
            return np.packbits(np.reshape(array, (1, -1)), axis=1, bitorder="little")
        return np.asarray(array, _FLOAT, order="C").reshape(1, -1).view(np.uint8)

    def _broken(self, task: int) -> list[tuple[Place, str]]:
        place = self._place(task)
        found = ((chunks.path(place), chunks.examine(place)[0]) for chunks in self._chunks.values())
        return [(path, reason) for path, reason in found if reason]

    def _place(self, task: int) -> int:
        return list(self.spec.after_task).index(task)
