"""The content of a mask store, except the masks. The configuration and the code determine it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol

import numpy as np

from harness.storage.shared import SharedSpec
from supsup_core.arrays import check_shape
from supsup_core.states.layout import StateLayout


class Rows(Protocol):
    """Rows to write to an array: a NumPy array, or an object that makes slices on request."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all rows together; the first axis counts the rows."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)  # == of arrays has no single truth value
class StoreContent:
    """The content of a mask store, except the masks.

    Attributes:
        layout: layout of a packed row.
        weights: a mapping from name, such as layer1, to fixed weights. They are stored as float32.
        inputs: a mapping from name, such as permutations, to an array with one row per task. A task
            can be made again from its row.
        capacity: largest possible number of tasks, >= 1.
        attributes: a mapping from name to JSON value: attributes of the group, such as network,
            family, seed, method and versions. `run_id`, the identity of the run, must be one of
            them. It is written in the log files too.
        shared: description of the arrays that tasks train together or pass on.

    Raises:
        ValueError: capacity is below 1, or an array of weights has another shape than its gains.
    """

    layout: StateLayout
    weights: Mapping[str, np.ndarray]
    inputs: Mapping[str, Rows]
    capacity: int
    attributes: Mapping[str, Any]
    shared: SharedSpec = field(default_factory=SharedSpec)

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ValueError(f"capacity must be >= 1, got {self.capacity}")
        for tensor in self.layout.tensors:
            if tensor.over == "weights":
                found = self.weights[tensor.source].shape
                check_shape(f"weights/{tensor.source}", found, tensor.shape, "…")

    @property
    def fixed_names(self) -> list[str]:
        """The names, such as weights/layer1, of all arrays of weights and inputs."""
        weights = [f"weights/{name}" for name in self.weights]
        return weights + [f"inputs/{name}" for name in self.inputs]

    def fixed_rows(self) -> dict[str, Rows]:
        """Return a mapping from the name of an array, such as weights/layer1, to its rows."""
        found: dict[str, Rows] = {f"inputs/{name}": rows for name, rows in self.inputs.items()}
        # A 0-dimensional array gets one axis, because chunks are cut along the first axis.
        return found | {
            f"weights/{name}": np.atleast_1d(weight).astype(np.float32)
            for name, weight in self.weights.items()
        }

    @property
    def num_bytes(self) -> int:
        """Bytes of the store when all its masks are committed."""
        of_inputs = sum(one.dtype.itemsize * prod(one.shape) for one in self.inputs.values())
        of_weights = sum(weight.nbytes for weight in self.weights.values())
        of_masks = self.layout.row_bytes * self.capacity
        return of_masks + of_inputs + of_weights + self.shared.num_bytes
