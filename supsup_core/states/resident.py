"""States that stay on a GPU: matrix products of all states, without copies between host and GPU.

The packed rows are uploaded once. If they fit, their bits are also stored unpacked, as bfloat16
zeros and ones. Otherwise each product unpacks the rows part by part on the device.

Products with bfloat16 bits are fast, but they need bfloat16 vectors, which have only 8 binary
digits. So a float32 vector is split into limbs: bfloat16 vectors that sum to the vector. The
products of limbs and bits are exact, and their sums are computed in float32.

On the CPU, the same code computes products of float32 values. Tests use this form.

Shape letters: T states, Q queries, A coefficient vectors, C states of one part, L limbs,
M vectors of limbs, R bytes and F = 8 R bits of a packed row, D successive bits of a row.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from torch import Tensor

from supsup_core.arrays import check_shape
from supsup_core.kernels.gpu import packed_plain
from supsup_core.kernels.gpu.choose import packed_kernels
from supsup_core.networks.protocol import Gains
from supsup_core.states.layout import Plane, StateLayout
from supsup_core.states.resident_products import (
    SUMMED_BITS,
    product,
    product_in_short_sums,
    summed,
)
from supsup_core.states.resident_storage import ROWS_TOGETHER, Storage

# States are unpacked to float32, for forward passes with each state, in parts of this size.
PART_BYTES = 80_000_000
# If the unpacked bits of all states do not fit, products unpack parts of this size.
_PRODUCT_BYTES = 2**28
# Up to this many vectors are multiplied with packed rows by a kernel that reads every packed bit
# once. Unpacked bits take 16 times as many bytes, but matrix products take all vectors at once.
FEW_VECTORS = 4
_LIMBS_OF_FLOAT32 = 3
# Sums of float32 on a GPU may cut off digits instead of rounding, so this is the largest error of
# an addition, as a fraction of the sum of absolute values.
_ADDITION = 2.0**-23


class ResidentStates:
    """States whose packed rows stay on a device. For the methods, see the protocol States.

    Args:
        layout: the layout of the packed rows.
        rows: (T, R) the packed rows, at least one. They are copied to the device.
        device: the device of the rows, of the computations and of all returned tensors.
        unpacked_bytes: the unpacked bits of all states are stored if they take at most this many
            bytes. If None, the limit is a fraction of the device's free memory, or 0 on the CPU.
        num_limbs: L, the number of limbs of a vector in `combine` and `dot`. Three limbs keep all
            digits of a float32.

    Raises:
        ValueError: there is no row, or the rows do not have the length R of the layout.
    """

    def __init__(
        self,
        layout: StateLayout,
        rows: UInt8[np.ndarray, "T R"],
        device: torch.device,
        *,
        unpacked_bytes: int | None = None,
        num_limbs: int = _LIMBS_OF_FLOAT32,
    ) -> None:
        if not len(rows):
            raise ValueError("rows must hold one state or more, got none: pass the row of one task")
        check_shape("rows", rows.shape, (len(rows), layout.row_bytes), "T R")
        self.layout, self.device = layout, device
        self._unpacked_bytes, self._num_limbs = unpacked_bytes, num_limbs
        self._take(Storage(layout.row_bytes, len(rows), device, unpacked_bytes), rows)

    def _take(self, storage: "Storage", new: UInt8[np.ndarray, "T R"]) -> None:
        """Append new states to a storage, and then use all states of the storage."""
        storage.append(new)
        self._storage, self._num_states = storage, storage.num_rows
        self._ones: Tensor | None = None
        floats = self._stored(self.packed)
        self._scales = {
            tensor: floats[place.spec.name].reshape(-1)
            for tensor, place in self.layout.scales.items()
        }

    def __len__(self) -> int:
        return self._num_states

    def grown(self, rows: UInt8[np.ndarray, "T R"]) -> "ResidentStates":
        """Make states with more rows. Only the new rows are copied to the device.

        This object stays usable, and shares the memory of its rows with the new object.

        Args:
            rows: all packed rows. They begin with the rows of this object, in the same order.

        Raises:
            ValueError: `rows` has fewer rows than this object.
        """
        if len(rows) < len(self):
            raise ValueError(
                f"rows must contain at least the {len(self)} earlier states, got {len(rows)}: "
                "pass the earlier states and the new states together"
            )
        check_shape("rows", rows.shape, (len(rows), self.layout.row_bytes), "T R")
        more = object.__new__(type(self))
        more.layout, more.device = self.layout, self.device
        more._unpacked_bytes, more._num_limbs = self._unpacked_bytes, self._num_limbs
        storage = self._storage
        if storage.num_rows != len(self) or len(rows) > storage.capacity:
            # The capacity is doubled, so that all checkpoints together copy a row less than two
            # times on average. If another object has already grown from this one, the rows get a
            # storage of their own.
            capacity = max(len(rows), 2 * len(self))
            storage = Storage(self.layout.row_bytes, capacity, self.device, self._unpacked_bytes)
            storage.append(self.packed)
        more._take(storage, rows[len(self) :])
        return more

    @property
    def packed(self) -> UInt8[Tensor, "T R"]:
        """The packed rows, on the device."""
        return self._storage.rows[: len(self)]

    @property
    def is_unpacked(self) -> bool:
        """Whether the unpacked bits of all states are stored."""
        return self._storage.bits is not None

    def gains(self, task: int) -> dict[str, Tensor]:
        """Return the gains of one state: a mapping from a masked tensor's name to its gains."""
        where = slice(task, task + 1)
        gains = self._scaled(self.layout.unflatten(self._as_floats(self.packed[where])), where)
        return {name: gain[0] for name, gain in gains.items()}

    def floats(self, task: int) -> dict[str, Tensor]:
        """Return the floats of one state: a mapping from the name of an array to the array."""
        stored = self._stored(self.packed[task : task + 1])
        return {name: values[0, ...] for name, values in stored.items()}

    def unpacked(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Unpack the states in parts, in the order of the states; see States.unpacked."""
        at_once = max(1, PART_BYTES // (4 * self.layout.row_bits))
        for start in range(0, len(self), at_once):
            where = slice(start, min(start + at_once, len(self)))
            rows = self.packed[where]
            gains = self.layout.unflatten(self._as_floats(rows))
            yield self._scaled(gains, where), self._stored(rows)

    def combine(self, alphas: Float[Tensor, "A T"]) -> dict[str, Tensor]:
        """Compute a weighted sum of the gains of all states; see States.combine."""
        check_shape("alphas", alphas.shape, (len(alphas), len(self)), "A T")
        if not self._scales:
            return self.layout.unflatten(self._weighted(alphas))
        total = alphas.new_zeros((len(alphas), self.layout.row_bits))
        for plane in self.layout.planes:
            scale, columns = self._scales.get(plane.tensor), _columns(plane)
            shares = alphas if scale is None else alphas * scale
            total[:, columns] = self._weighted(shares, columns)
        return self.layout.unflatten(total)

    def dot(self, slopes: Gains) -> Float[Tensor, "Q T"]:
        """Compute the product of each query's slopes and each state's gains; see States.dot."""
        vectors = self.layout.flatten(slopes)
        if not self._scales:
            return self.products(vectors, self._num_limbs)
        found = vectors.new_zeros((len(vectors), len(self)))
        for plane in self.layout.planes:
            scale, columns = self._scales.get(plane.tensor), _columns(plane)
            part = self._multiplied(self._limbs(vectors[:, columns], self._num_limbs), columns)
            found += part if scale is None else part * scale
        return found

    def reads_packed(self, num_vectors: int) -> bool:
        """Return whether `products` reads the packed rows. If so, it needs no limbs."""
        return num_vectors <= FEW_VECTORS and packed_kernels(self.device) is not packed_plain

    def products(
        self,
        vectors: Float32[Tensor, "Q F"],
        num_limbs: int = _LIMBS_OF_FLOAT32,
        limbs: Float[Tensor, "L Q F"] | None = None,
    ) -> Float32[Tensor, "Q T"]:
        """Compute, for each vector and state, the sum of the values of the bits that are one.

        Args:
            vectors: (Q, F) one value per bit of a packed row.
            num_limbs: L, the number of limbs of a vector, 2 or 3.
            limbs: (L, Q, F) the limbs of the vectors, in the type `dtype`. If None, they are
                computed.

        Returns:
            (Q, T) sums. `products_error` bounds their errors.
        """
        if self.reads_packed(len(vectors)):
            found: Tensor = packed_kernels(self.device).packed_dot(self.packed, vectors)
            return found
        return self._multiplied(self._limbs(vectors, num_limbs) if limbs is None else limbs)

    @property
    def dtype(self) -> torch.dtype:
        """The type of unpacked bits and of limbs."""
        return self._storage.dtype

    @property
    def products_error(self) -> float:
        """The largest error of `products`, divided by the sum of a vector's absolute values.

        The bound is true for two limbs or more. Two limbs leave an error of 2^-18 of a value, which
        is 32 times _ADDITION. On a GPU, a step of a matrix product multiplies and adds 16 values.
        The largest of 17 numbers then decides how many digits each of them keeps, so 16 values have
        the errors of 17 additions. bfloat16 keeps fewer digits of very small values. For such
        values, the bound is not true.
        """
        num_sums = -(-self.layout.row_bits // SUMMED_BITS)
        return _ADDITION * (SUMMED_BITS * 17 / 16 + num_sums + 64)

    def exact_products(
        self, vectors: Float32[Tensor, "Q F"], tasks: Int64[Tensor, "Q C"]
    ) -> Float64[Tensor, "Q C"]:
        """Compute the sums of `products` in float64, for C chosen states per vector.

        Equal rows have exactly equal sums.

        Args:
            vectors: (Q, F) one value per bit of a packed row.
            tasks: (Q, C) for each vector, the task numbers of C states. A negative number stands
                for no state; see packed_plain.exact_products.
        """
        kernels = packed_kernels(self.device)
        found: Tensor = kernels.exact_products(self.packed, vectors, tasks)
        return found

    @property
    def ones(self) -> Float32[Tensor, " F"]:
        """(F,) for each bit of a packed row, the number of states that have a one."""
        if self._ones is None:
            # Whole numbers below 2^24 are exact in float32.
            every = torch.ones((1, len(self)), device=self.device)
            self._ones = self._weighted(every, num_limbs=1)[0]
        return self._ones

    def _weighted(
        self,
        alphas: Float[Tensor, "A T"],
        columns: slice = slice(None),
        num_limbs: int | None = None,
    ) -> Float32[Tensor, "A D"]:
        """Multiply the bits of each state by the state's coefficient, and sum over the states."""
        padding = self._num_padded - len(self)
        limbs = self._limbs(
            torch.nn.functional.pad(alphas, (0, padding)), num_limbs or self._num_limbs
        )
        total: Tensor | None = None
        for where, bits in self._bits():
            found = product(limbs.flatten(0, 1)[:, where], bits[:, columns])
            total = found if total is None else total.add_(found)
        assert total is not None
        return summed(total, len(limbs))

    def _multiplied(
        self, limbs: Float[Tensor, "L Q D"], columns: slice = slice(None)
    ) -> Float32[Tensor, "Q T"]:
        """Multiply vectors, given as limbs, with some columns of the bits of all states."""
        found = [
            summed(product_in_short_sums(limbs.flatten(0, 1), bits[:, columns]), len(limbs))
            for _, bits in self._bits()
        ]
        return (found[0] if len(found) == 1 else torch.cat(found, dim=1))[:, : len(self)]

    def _limbs(self, vectors: Float32[Tensor, "Q D"], num_limbs: int) -> Float[Tensor, "L Q D"]:
        kernels = packed_kernels(self.device)
        found: Tensor = kernels.limbs(vectors, num_limbs, self._storage.dtype)
        return found

    @property
    def _num_padded(self) -> int:
        """The number of states T, rounded up to a multiple of ROWS_TOGETHER.

        The rows from index T on are zero, or have states that were added later.
        """
        return -(-len(self) // ROWS_TOGETHER) * ROWS_TOGETHER

    def _bits(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield the unpacked bits (C, F) of all states in parts, and each part's range of rows."""
        storage, num_rows = self._storage, self._num_padded
        if storage.bits is not None:
            yield slice(0, num_rows), storage.bits[:num_rows]
            return
        row = storage.dtype.itemsize * self.layout.row_bits
        at_once = max(1, _PRODUCT_BYTES // (row * ROWS_TOGETHER)) * ROWS_TOGETHER
        shape = min(at_once, num_rows), self.layout.row_bits
        buffer = torch.empty(shape, dtype=storage.dtype, device=self.device)
        for start in range(0, num_rows, at_once):
            where = slice(start, min(start + at_once, num_rows))
            bits = buffer[: where.stop - start]
            packed_kernels(self.device).unpack(storage.rows[where], bits)
            yield where, bits

    def _as_floats(self, rows: UInt8[Tensor, "C R"]) -> Float32[Tensor, "C F"]:
        bits = torch.empty((len(rows), self.layout.row_bits), device=self.device)
        packed_kernels(self.device).unpack(rows, bits)
        return bits

    def _stored(self, rows: UInt8[Tensor, "C R"]) -> dict[str, Tensor]:
        """Read the floats of C rows: a mapping from the name of an array to (C, *shape) values."""
        return {
            place.spec.name: rows[:, place.bytes]
            .contiguous()
            .view(torch.float32)
            .reshape(len(rows), *place.spec.shape)
            for place in self.layout.floats
        }

    def _scaled(self, gains: dict[str, Tensor], where: slice) -> dict[str, Tensor]:
        """Multiply the gains (C, *shape) of a range of states by the scales of these states.

        A tensor without a scale stays unchanged.
        """
        for name, scale in self._scales.items():
            gain = gains[name]
            gains[name] = gain * scale[where].reshape(-1, *(1 for _ in gain.shape[1:]))
        return gains


def _columns(plane: Plane) -> slice:
    """Return the range of a plane's bits in a row. It ends at a multiple of 64 bits."""
    return slice(plane.bits.start, -(-plane.bits.stop // 64) * 64)
