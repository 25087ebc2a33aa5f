"""Masks as bits: the layout of a packed row, packing and unpacking.

A row holds one task's masks of all layers: bits little-endian within a byte, a
layer's weights in C order, each layer from a 64-byte boundary on, and at least
one zero byte at the end, so that a kernel may read a little past the last bit.
Shape letters: T masks, R bytes of a row, F = 8 R bits, O and I as in a layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from supsup_core.arrays import check_shape
from supsup_core.networks import Layer, Network

ALIGNMENT_BYTES = 64  # a cache line, and the widest vector register


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


@dataclass(frozen=True)
class MaskLayout:
    """Where each layer's bits lie in a packed row.

    Attributes:
        layers: in order.
        byte_offsets: first byte of each layer.
        row_bytes: R.
    """

    layers: tuple[Layer, ...]
    byte_offsets: tuple[int, ...]
    row_bytes: int

    @classmethod
    def of(cls, network: Network) -> "MaskLayout":
        """Lay out the masks of a network."""
        offsets, end = [], 0
        for layer in network.layers:
            offsets.append(_aligned(end))
            end = offsets[-1] + -(-layer.num_weights // 8)
        return cls(network.layers, tuple(offsets), _aligned(end + 1))

    @property
    def row_bits(self) -> int:
        """F."""
        return 8 * self.row_bytes

    def _bit_slices(self) -> list[slice]:
        return [
            slice(8 * offset, 8 * offset + layer.num_weights)
            for layer, offset in zip(self.layers, self.byte_offsets, strict=True)
        ]

    def pack(self, masks: Sequence[np.ndarray]) -> UInt8[np.ndarray, "T R"]:
        """Pack masks into rows.

        Args:
            masks: for each layer bool (T, O, I).

        Raises:
            ValueError: a mask of another shape than its layer.
        """
        num_tasks = len(masks[0])
        bits = np.zeros((num_tasks, self.row_bits), dtype=np.bool_)
        for where, layer, mask in zip(self._bit_slices(), self.layers, masks, strict=True):
            check_shape(f"mask of {layer.name}", mask.shape, (num_tasks, *layer.shape), "T O I")
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
            bits[:, where].reshape(len(rows), *layer.shape)
            for where, layer in zip(self._bit_slices(), self.layers, strict=True)
        ]

    def flatten(self, values: Sequence[Float[Tensor, "Q _ _"]]) -> Float[Tensor, "Q F"]:
        """Lay real values of the layers out as the bits of a row lie; zero between them."""
        first = values[0]
        flat = first.new_zeros((len(first), self.row_bits))
        for where, value in zip(self._bit_slices(), values, strict=True):
            flat[:, where] = value.reshape(len(first), -1)
        return flat

    def unflatten(self, flat: Float[Tensor, "Q F"]) -> list[Float[Tensor, "Q _ _"]]:
        """Read the layers' values back from a row's layout; views, not copies."""
        return [
            flat[:, where].unflatten(1, layer.shape)
            for where, layer in zip(self._bit_slices(), self.layers, strict=True)
        ]


def density(layout: MaskLayout, rows: UInt8[np.ndarray, "T R"]) -> np.ndarray:
    """Fraction of ones among a mask's weights, float64 (T,)."""
    num_weights = sum(layer.num_weights for layer in layout.layers)
    ones = np.bitwise_count(rows).sum(axis=1, dtype=np.int64)
    return np.asarray(ones / num_weights)


def as_floats(rows: UInt8[np.ndarray, "T R"], device: torch.device) -> Float[Tensor, "T F"]:
    """Unpack rows into float32 zeros and ones, layout unchanged."""
    bits = np.unpackbits(rows, axis=1, bitorder="little")
    return torch.from_numpy(bits).to(device=device, dtype=torch.float32)
