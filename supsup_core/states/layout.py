"""What is stored of a task, and how it lies in a packed row of bytes.

The state of a task is bits and floats. The bits lie in planes: each masked tensor has one or
more, and its gain is linear in them,

    gain = scale * sum over planes of coefficient * bits,

where the scale is 1 if the task stores none. A row holds the planes of all tensors, bits
little-endian within a byte, values in C order, each plane from a 64-byte boundary on; then the
task's floats, float32 little-endian; and at least one zero byte at the end, so that a kernel may
read a little past the last bit.

Shape letters: T states, R bytes of a row, F = 8 R bits, Q queries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from supsup_core.arrays import check_shape
from supsup_core.networks.protocol import FloatSpec, Gains, MaskedTensor

ALIGNMENT_BYTES = 64  # a cache line, and the widest vector register
_FLOAT = np.dtype("<f4")


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


@dataclass(frozen=True)
class PlaneSpec:
    """What a plane of bits means.

    Attributes:
        role: "keep": which gains are not zero; "negative": which of those are below zero;
            "coat": one of several nested masks that are added up.
        coefficient: what a one adds to the gain.
    """

    role: Literal["keep", "negative", "coat"] = "keep"
    coefficient: float = 1.0


@dataclass(frozen=True)
class Plane:
    """A plane of bits of one masked tensor, and its place in a row.

    Attributes:
        tensor: name of the masked tensor.
        spec: what the plane means.
        shape: of the bits.
        byte_offset: first byte of the plane in a row.
    """

    tensor: str
    spec: PlaneSpec
    shape: tuple[int, ...]
    byte_offset: int

    @property
    def num_bits(self) -> int:
        """Number of bits of the plane."""
        return prod(self.shape)

    @property
    def bits(self) -> slice:
        """Place of the plane among the bits of a row."""
        return slice(8 * self.byte_offset, 8 * self.byte_offset + self.num_bits)


@dataclass(frozen=True)
class FloatPlace:
    """An array of floats, and its place in a row.

    Attributes:
        spec: what the array is.
        byte_offset: first byte of the array in a row.
    """

    spec: FloatSpec
    byte_offset: int

    @property
    def bytes(self) -> slice:
        """Place of the array among the bytes of a row."""
        end = self.byte_offset + _FLOAT.itemsize * prod(self.spec.shape)
        return slice(self.byte_offset, end)


@dataclass(frozen=True, eq=False)  # == of arrays has no single truth value
class TaskState:
    """What is stored of one task.

    Attributes:
        planes: bool, in the order of the layout's planes.
        floats: float32 by name.
    """

    planes: tuple[np.ndarray, ...]
    floats: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class StateLayout:
    """Where everything of a state lies in a row.

    Attributes:
        tensors: the masked tensors, in the network's order.
        planes: of the first tensor, of the second, and so on.
        floats: behind the planes.
        row_bytes: R.
    """

    tensors: tuple[MaskedTensor, ...]
    planes: tuple[Plane, ...]
    floats: tuple[FloatPlace, ...]
    row_bytes: int

    @classmethod
    def of(
        cls,
        planes: Sequence[tuple[MaskedTensor, Sequence[PlaneSpec]]],
        floats: Sequence[FloatSpec] = (),
    ) -> "StateLayout":
        """Lay out the states of a network's tasks.

        Args:
            planes: each masked tensor, and what its planes mean.
            floats: what a task stores besides.

        Raises:
            ValueError: a tensor without a plane, or two floats of one name.
        """
        places, end = [], 0
        for tensor, specs in planes:
            if not specs:
                raise ValueError(f"tensor {tensor.name} must have a plane or more, got none")
            for spec in specs:
                places.append(Plane(tensor.name, spec, tensor.shape, _aligned(end)))
                end = places[-1].byte_offset + -(-tensor.num_gains // 8)
        if len({spec.name for spec in floats}) < len(floats):
            names = [spec.name for spec in floats]
            raise ValueError(f"floats must have a name each, got {names}")
        arrays = []
        for i, array in enumerate(floats):
            arrays.append(FloatPlace(array, end if i else _aligned(end)))
            end = arrays[-1].bytes.stop
        return cls(tuple(t for t, _ in planes), tuple(places), tuple(arrays), _aligned(end + 1))

    @property
    def row_bits(self) -> int:
        """F."""
        return 8 * self.row_bytes

    @property
    def num_bits(self) -> int:
        """Number of bits of a state, not counting the padding between planes, nor floats."""
        return sum(plane.num_bits for plane in self.planes)

    @property
    def scales(self) -> dict[str, FloatPlace]:
        """The places of the scales, by the masked tensor that each belongs to."""
        return {
            place.spec.tensor: place
            for place in self.floats
            if place.spec.role == "scale" and place.spec.tensor is not None
        }

    def pack(self, states: Sequence[TaskState]) -> UInt8[np.ndarray, "T R"]:
        """Pack states into rows.

        Raises:
            ValueError: a plane or an array of floats that is missing, or of another shape.
        """
        for state in states:
            self._check(state)
        bits = np.zeros((len(states), self.row_bits), dtype=np.bool_)
        for row, state in zip(bits, states, strict=True):
            for plane, values in zip(self.planes, state.planes, strict=True):
                check_shape(f"{plane.spec.role} of {plane.tensor}", values.shape, plane.shape, "…")
                row[plane.bits] = values.reshape(-1)
        rows = np.packbits(bits, axis=1, bitorder="little")
        for row, state in zip(rows, states, strict=True):
            for place in self.floats:
                values = np.asarray(state.floats[place.spec.name], dtype=_FLOAT)
                check_shape(place.spec.name, values.shape, place.spec.shape, "…")
                row[place.bytes] = np.frombuffer(values.tobytes(), np.uint8)
        return rows

    def _check(self, state: TaskState) -> None:
        """Refuse a state of other planes or floats."""
        wanted = len(self.planes), sorted(place.spec.name for place in self.floats)
        got = len(state.planes), sorted(state.floats)
        if got != wanted:
            raise ValueError(
                f"a state must have {wanted[0]} planes and the floats {wanted[1]}, "
                f"got {got[0]} and {got[1]}"
            )

    def unpack(self, rows: UInt8[np.ndarray, "T R"]) -> list[TaskState]:
        """Unpack rows into states.

        Raises:
            ValueError: rows of another length than R.
        """
        check_shape("rows", rows.shape, (len(rows), self.row_bytes), "T R")
        bits = np.unpackbits(rows, axis=1, bitorder="little").view(np.bool_)
        floats = self.read_floats(rows)
        return [
            TaskState(
                tuple(row[plane.bits].reshape(plane.shape) for plane in self.planes),
                {name: values[i, ...] for name, values in floats.items()},
            )
            for i, row in enumerate(bits)
        ]

    def read_floats(self, rows: UInt8[np.ndarray, "T R"]) -> dict[str, np.ndarray]:
        """Read the floats of rows: float32 (T, *shape), by name."""
        return {
            place.spec.name: np.ascontiguousarray(rows[:, place.bytes])
            .view(_FLOAT)
            .astype(np.float32)
            .reshape(len(rows), *place.spec.shape)
            for place in self.floats
        }

    def flatten(self, values: Gains) -> Float[Tensor, "Q F"]:
        """Lay out a linear function of gains as a function of bits: zero between the planes.

        Args:
            values: (Q, *shape) of each masked tensor, without scales.
        """
        first = next(iter(values.values()))
        flat = first.new_zeros((len(first), self.row_bits))
        for plane in self.planes:
            flat[:, plane.bits] = values[plane.tensor].reshape(len(first), -1)
            if plane.spec.coefficient != 1:
                flat[:, plane.bits] *= plane.spec.coefficient
        return flat

    def unflatten(self, flat: Float[Tensor, "Q F"]) -> dict[str, Float[Tensor, "Q ..."]]:
        """Add up the planes of each masked tensor: gains without scales.

        A tensor of one plane of coefficient 1 comes as a view, not a copy.
        """
        gains: dict[str, Tensor] = {}
        for plane in self.planes:
            part = flat[:, plane.bits].unflatten(1, plane.shape)
            if plane.spec.coefficient != 1:
                part = part * plane.spec.coefficient
            found = gains.get(plane.tensor)
            gains[plane.tensor] = part if found is None else found + part
        return gains


def density(layout: StateLayout, rows: UInt8[np.ndarray, "T R"]) -> np.ndarray:
    """Fraction of the gains that are not zero, float64 (T,).

    The first plane of a tensor says which: negative planes and further coats are subsets of it.
    """
    first: dict[str, Plane] = {}
    for plane in layout.planes:
        first.setdefault(plane.tensor, plane)
    ones = np.zeros(len(rows), dtype=np.int64)
    for plane in first.values():
        # The padding up to the next plane is zero.
        end = plane.byte_offset + -(-plane.num_bits // 8)
        ones += np.bitwise_count(rows[:, plane.byte_offset : end]).sum(axis=1, dtype=np.int64)
    return np.asarray(ones / sum(plane.num_bits for plane in first.values()))


def as_floats(rows: UInt8[np.ndarray, "T R"], device: torch.device) -> Float[Tensor, "T F"]:
    """Unpack rows into float32 zeros and ones, layout unchanged."""
    bits = np.unpackbits(rows, axis=1, bitorder="little")
    return torch.from_numpy(bits).to(device=device, dtype=torch.float32)
