"""The order of a layer's columns in training, and packed masks, on a device.

If the tasks are permutations, the columns of the first layer are permuted instead of the images.

Shape letters: T tasks, B tasks of a part, O outputs and I inputs of a layer, F bits and
R bytes of a row.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int32, UInt8
from torch import Tensor

from supsup_core.states.layout import StateLayout
from supsup_core.training.resident_steps import ResidentLayer


def wide(columns: Tensor, like: Tensor) -> Tensor:
    """View column indices (T, I) as an index tensor (T, O, I) for gather and scatter."""
    return columns.long()[:, None, :].expand(like.shape)


def in_training_order(
    values: Float[Tensor, "B O I"], columns: Int32[Tensor, "T I"] | None, part: slice
) -> Float[Tensor, "B O I"]:
    """Move columns from stored order to training order.

    Args:
        values: values of the B tasks of a part.
        columns: for each task and each input of the layer, the index of the input's column in
            training order. None if the order does not change.
        part: the part's range of tasks.
    """
    if columns is None:
        return values
    return torch.empty_like(values, memory_format=torch.contiguous_format).scatter_(
        2, wide(columns[part], values), values
    )


def packed_rows(
    layout: StateLayout, layers: Sequence[ResidentLayer], columns: Int32[Tensor, "T I"] | None
) -> UInt8[Tensor, "T R"]:
    """Pack the masks of all tasks into rows, on the device of the layers.

    Args:
        layout: the layout of a row.
        layers: the layers of all tasks.
        columns: for each task and each input of the first layer, the index of the input's column in
            training order. None if the order does not change.
    """
    masked = layers[0].masked
    shape = len(masked), layout.row_bytes
    rows = torch.zeros(shape, dtype=torch.uint8, device=masked.device)
    for i, layer in enumerate(layers):
        own = columns if i == 0 else None
        planes = [plane for plane in layout.planes if plane.tensor == layer.tensor.name]
        for part in layer.parts():
            for plane, bits in zip(planes, layer.bits(part), strict=True):
                stored = bits if own is None else bits.gather(2, wide(own[part], bits))
                packed = _packed(stored.flatten(1))
                rows[part, plane.byte_offset : plane.byte_offset + packed.shape[1]] = packed
    return rows


def _packed(bits: Tensor) -> UInt8[Tensor, "T _"]:
    """Pack bits (T, F) into bytes, the first bit into the lowest bit of a byte."""
    padded = torch.nn.functional.pad(bits.to(torch.uint8), (0, -bits.shape[1] % 8))
    powers = 2 ** torch.arange(8, dtype=torch.uint8, device=bits.device)
    return (padded.view(len(bits), -1, 8) * powers).sum(dim=2, dtype=torch.uint8)
