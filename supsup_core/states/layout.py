"""Masks as bits: the layout of a packed row, packing and unpacking.

A row holds one task's masks of all layers: bits little-endian within a byte, a
layer's weights in C order, each layer from a 64-byte boundary on, and at least
one zero byte at the end, so that a kernel may read a little past the last bit.
A mask has a bit for every weight (O, I); or, over units, one for every unit (O, 1)
of a hidden layer and none, (O, 0), for the outputs.
Shape letters: T masks, R bytes of a row, F = 8 R bits, O and I as in a layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from supsup_core.arrays import check_shape
from supsup_core.networks.mlp import Layer, Network

ALIGNMENT_BYTES = 64  # a cache line, and the widest vector register


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


@dataclass(frozen=True)
class MaskLayout:
    """Where each layer's bits lie in a packed row.

    Attributes:
        layers: in order.
        mask_shapes: of each layer's mask.
        byte_offsets: first byte of each layer.
        row_bytes: R.
    """

    layers: tuple[Layer, ...]
    mask_shapes: tuple[tuple[int, int], ...]
    byte_offsets: tuple[int, ...]
    row_bytes: int

    @classmethod
    def of(cls, network: Network) -> "MaskLayout":
        """Lay out masks over the weights of a network."""
        return cls._of(network, [layer.shape for layer in network.layers])

    @classmethod
    def of_units(cls, network: Network) -> "MaskLayout":
        """Lay out masks over the hidden units of a network."""
        hidden, outputs = network.widths[1:-1], network.widths[-1]
        return cls._of(network, [*((width, 1) for width in hidden), (outputs, 0)])

    @classmethod
    def _of(cls, network: Network, shapes: Sequence[tuple[int, int]]) -> "MaskLayout":
        offsets, end = [], 0
        for shape in shapes:
            offsets.append(_aligned(end))
            end = offsets[-1] + -(-prod(shape) // 8)
        return cls(network.layers, tuple(shapes), tuple(offsets), _aligned(end + 1))

    @property
    def row_bits(self) -> int:
        """F."""
        return 8 * self.row_bytes

    @property
    def num_bits(self) -> int:
        """Of a mask, without what lies between layers and behind them."""
        return sum(map(prod, self.mask_shapes))

    @property
    def bit_slices(self) -> list[slice]:
        """Where the bits of each layer lie among those of a row."""
        return [
            slice(8 * offset, 8 * offset + prod(shape))
            for shape, offset in zip(self.mask_shapes, self.byte_offsets, strict=True)
        ]

    def pack(self, masks: Sequence[np.ndarray]) -> UInt8[np.ndarray, "T R"]:
        """Pack masks into rows.

        Args:
            masks: for each layer bool (T, O, I).

        Raises:
            ValueError: a mask of another shape than its layer's.
        """
        num_tasks = len(masks[0])
        bits = np.zeros((num_tasks, self.row_bits), dtype=np.bool_)
        places = zip(self.bit_slices, self.layers, self.mask_shapes, masks, strict=True)
        for where, layer, shape, mask in places:
            check_shape(f"mask of {layer.name}", mask.shape, (num_tasks, *shape), "T O I")
            bits[:, where] = mask.reshape(num_tasks, -1)
        return np.packbits(bits, axis=1, bitorder="little")

    def unpack(self, rows: UInt8[np.ndarray, "T R"]) -> list[np.ndarray]:
        """Unpack rows into masks: for each layer bool (T, O, I).

        Raises:
            ValueError: rows of another length than R.
        """
        check_shape("rows", rows.shape, (len(rows), self.row_bytes), "T R")
        bits = np.unpackbits(rows, axis=1, bitorder="little").view(np.bool_)
        return [
            bits[:, where].reshape(len(rows), *shape)
            for where, shape in zip(self.bit_slices, self.mask_shapes, strict=True)
        ]

    def flatten(self, values: Sequence[Float[Tensor, "Q _ _"]]) -> Float[Tensor, "Q F"]:
        """Lay real values of the layers out as the bits of a row lie; zero between them."""
        first = values[0]
        flat = first.new_zeros((len(first), self.row_bits))
        for where, value in zip(self.bit_slices, values, strict=True):
            flat[:, where] = value.reshape(len(first), -1)
        return flat

    def unflatten(self, flat: Float[Tensor, "Q F"]) -> list[Float[Tensor, "Q _ _"]]:
        """Read the layers' values back from a row's layout; views, not copies."""
        return [
            flat[:, where].unflatten(1, shape)
            for where, shape in zip(self.bit_slices, self.mask_shapes, strict=True)
        ]


def density(layout: MaskLayout, rows: UInt8[np.ndarray, "T R"]) -> np.ndarray:
    """Fraction of ones among a mask's bits, float64 (T,)."""
    ones = np.bitwise_count(rows).sum(axis=1, dtype=np.int64)
    return np.asarray(ones / layout.num_bits)


def as_floats(rows: UInt8[np.ndarray, "T R"], device: torch.device) -> Float[Tensor, "T F"]:
    """Unpack rows into float32 zeros and ones, layout unchanged."""
    bits = np.unpackbits(rows, axis=1, bitorder="little")
    return torch.from_numpy(bits).to(device=device, dtype=torch.float32)
