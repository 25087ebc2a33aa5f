"""The state of a task, and the layout of states in packed rows of bytes.

The state of a task consists of planes of bits and arrays of floats. Each masked tensor has one
plane or more, and its gain is a linear function of the bits:

    gain = scale * sum over planes of coefficient * bits.

The scale is 1 if the task stores no scale. A tensor without planes has another gain. If the task
stores a head, the head is the gain. If the task stores two factors, the gain is their outer
product. Otherwise, the gain is 1 for each weight.

A row has three parts. The first part has the planes of
all tensors: each plane starts at a 64-byte boundary, with values in C order and the first value in
the lowest bit of a byte. The second part has the task's floats, as little-endian float32. The last
part has at least one zero byte, so that a kernel may read a little past the last bit.

Shape letters: T states, R bytes of a row, F = 8 R bits of a row, Q queries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from supsup_core.arrays import check_shape
from supsup_core.networks.protocol import FloatSpec, Gains, MaskedTensor

ALIGNMENT_BYTES = 64  # size of a cache line, and of the widest vector register
_FLOAT = np.dtype("<f4")


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


@dataclass(frozen=True)
class PlaneSpec:
    """The meaning of a plane of bits. A plane has one bit for each gain of a masked tensor.

    Attributes:
        role: "keep": a one means that the gain is not zero. "negative": a one means that the gain
            is below zero. "coat": the tensor has several coat planes, and its gain is their sum.
            Each coat plane has ones only where the previous coat plane has ones.
        coefficient: the number that a one adds to the gain.
    """

    role: Literal["keep", "negative", "coat"] = "keep"
    coefficient: float = 1.0


@dataclass(frozen=True)
class Plane:
    """A plane of bits of one masked tensor, and the plane's position in a row.

    Attributes:
        tensor: name of the masked tensor.
        spec: meaning of the plane.
        shape: shape of the plane, which is the shape of the masked tensor.
        byte_offset: position of the plane's first byte in a row.
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
        """Positions of the plane's bits in a row, counted in bits from the start of the row."""
        return slice(8 * self.byte_offset, 8 * self.byte_offset + self.num_bits)


@dataclass(frozen=True)
class FloatPlace:
    """An array of floats, and the array's position in a row.

    Attributes:
        spec: description of the array: its name, role and shape.
        byte_offset: position of the array's first byte in a row.
    """

    spec: FloatSpec
    byte_offset: int

    @property
    def bytes(self) -> slice:
        """Positions of the array's bytes in a row."""
        end = self.byte_offset + _FLOAT.itemsize * prod(self.spec.shape)
        return slice(self.byte_offset, end)


@dataclass(frozen=True, eq=False)  # == of arrays gives an array, not one bool
class TaskState:
    """The stored state of one task, unpacked.

    Attributes:
        planes: one array of bool per plane, in the order of the layout's planes.
        floats: a mapping from the name of each array of floats to its float32 values.
    """

    planes: tuple[np.ndarray, ...]
    floats: Mapping[str, np.ndarray] = field(default_factory=dict)


class PackedState(TaskState):
    """The stored state of one task, which is unpacked only when its planes or floats are read.

    Args:
        layout: the layout of the row.
        row: (R,) the packed row.
    """

    layout: "StateLayout"
    row: UInt8[np.ndarray, " R"]

    def __init__(self, layout: "StateLayout", row: UInt8[np.ndarray, " R"]) -> None:
        self.__dict__.update(layout=layout, row=row)  # a frozen dataclass refuses assignments

    def __getattr__(self, name: str) -> Any:
        if name not in ("planes", "floats"):
            raise AttributeError(name)
        (state,) = self.layout.unpack(self.row[None])
        self.__dict__.update(planes=state.planes, floats=state.floats)
        return self.__dict__[name]


@dataclass(frozen=True)
class StateLayout:
    """The positions of all planes and floats of a state in a packed row.

    Attributes:
        tensors: the masked tensors, in the network's order.
        planes: all planes, in the order of their tensors.
        floats: all arrays of floats, which follow the planes in a row.
        row_bytes: R, the number of bytes of a row.
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
        """Make the layout of the states of a network's tasks.

        Args:
            planes: one pair per masked tensor: the tensor, and the meanings of its planes. Either
                every tensor has planes, or none has.
            floats: descriptions of the arrays of floats that each task stores.

        Raises:
            ValueError: only some tensors have planes, or two arrays of floats have the same name.
        """
        bare = [tensor.name for tensor, specs in planes if not specs]
        if bare and len(bare) < len(planes):
            raise ValueError(
                f"all tensors must have planes, or none, got no planes for {bare}: "
                "the finder's method planes() must return a PlaneSpec for each tensor"
            )
        places, end = [], 0
        for tensor, specs in planes:
            for spec in specs:
                places.append(Plane(tensor.name, spec, tensor.shape, _aligned(end)))
                end = places[-1].byte_offset + -(-tensor.num_gains // 8)
        if len({spec.name for spec in floats}) < len(floats):
            names = [spec.name for spec in floats]
            raise ValueError(f"floats must have different names, got {names}: rename one of them")
        arrays = []
        for i, array in enumerate(floats):
            arrays.append(FloatPlace(array, end if i else _aligned(end)))
            end = arrays[-1].bytes.stop
        return cls(tuple(t for t, _ in planes), tuple(places), tuple(arrays), _aligned(end + 1))

    @property
    def row_bits(self) -> int:
        """F, the number of bits of a row."""
        return 8 * self.row_bytes

    @property
    def num_bits(self) -> int:
        """Number of bits of all planes, without padding and without floats."""
        return sum(plane.num_bits for plane in self.planes)

    @property
    def scales(self) -> dict[str, FloatPlace]:
        """The tensors that have a scale: a mapping from tensor name to the scale's position."""
        return {
            place.spec.tensor: place
            for place in self.floats
            if place.spec.role == "scale" and place.spec.tensor is not None
        }

    @property
    def heads(self) -> dict[str, FloatPlace]:
        """The tensors with a head: a mapping from tensor name to the head's position."""
        return {str(p.spec.tensor): p for p in self.floats if p.spec.role == "head"}

    @property
    def factors(self) -> dict[str, tuple[FloatPlace, FloatPlace]]:
        """The tensors with two factors: a mapping from tensor name to the factors' positions."""
        found: dict[str, list[FloatPlace]] = {}
        for place in self.floats:
            if place.spec.role == "factor":
                found.setdefault(str(place.spec.tensor), []).append(place)
        return {name: (outputs, inputs) for name, (outputs, inputs) in found.items()}

    def pack(self, states: Sequence[TaskState]) -> UInt8[np.ndarray, "T R"]:
        """Pack T states into rows (T, R).

        Raises:
            ValueError: the planes or the floats of a state do not have the number, the names or the
                shapes of the layout.
        """
        packed = [s.row for s in states if isinstance(s, PackedState) and s.layout == self]
        if states and len(packed) == len(states):
            return np.stack(packed)
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
        """Raise ValueError if a state has other planes or floats than this layout."""
        wanted = len(self.planes), sorted(place.spec.name for place in self.floats)
        got = len(state.planes), sorted(state.floats)
        if got != wanted:
            raise ValueError(
                f"a state must have {wanted[0]} planes and the floats {wanted[1]}, "
                f"got {got[0]} planes and the floats {got[1]}: make the state with the layout of "
                "its finder"
            )

    def unpack(self, rows: UInt8[np.ndarray, "T R"]) -> list[TaskState]:
        """Unpack rows (T, R) into T states.

        Raises:
            ValueError: the rows do not have the length R of this layout.
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
        """Read the floats of T rows.

        Returns:
            A mapping from the name of each array of floats to its float32 values, (T, *shape).
        """
        return {
            place.spec.name: np.ascontiguousarray(rows[:, place.bytes])
            .view(_FLOAT)
            .astype(np.float32)
            .reshape(len(rows), *place.spec.shape)
            for place in self.floats
        }

    def flatten(self, values: Gains) -> Float[Tensor, "Q F"]:
        """Convert derivatives with respect to gains to derivatives with respect to bits of a row.

        Args:
            values: for Q queries, a mapping from the name of each masked tensor to derivatives
                (Q, *shape) with respect to its gains. These gains are not multiplied by scales.

        Returns:
            (Q, F) derivatives with respect to the F bits of a row. They are zero at the padding
            and at the floats.
        """
        first = next(iter(values.values()))
        flat = first.new_zeros((len(first), self.row_bits))
        for plane in self.planes:
            flat[:, plane.bits] = values[plane.tensor].reshape(len(first), -1)
            if plane.spec.coefficient != 1:
                flat[:, plane.bits] *= plane.spec.coefficient
        return flat

    def unflatten(self, flat: Float[Tensor, "Q F"]) -> dict[str, Float[Tensor, "Q ..."]]:
        """Compute the gains from bits. The gains are not multiplied by scales.

        Args:
            flat: (Q, F) the values of the F bits of a row, for Q states or superpositions.

        Returns:
            A mapping from the name of each masked tensor to its gains, (Q, *shape). If a tensor has
            one plane with coefficient 1, its gains are a view of `flat`.
        """
        gains: dict[str, Tensor] = {}
        for plane in self.planes:
            part = flat[:, plane.bits].unflatten(1, plane.shape)
            if plane.spec.coefficient != 1:
                part = part * plane.spec.coefficient
            found = gains.get(plane.tensor)
            gains[plane.tensor] = part if found is None else found + part
        return gains


def as_floats(rows: UInt8[np.ndarray, "T R"], device: torch.device) -> Float[Tensor, "T F"]:
    """Unpack the bits of T rows into float32 zeros and ones, (T, F), in the order of the bits."""
    bits = np.unpackbits(rows, axis=1, bitorder="little")
    return torch.from_numpy(bits).to(device=device, dtype=torch.float32)
