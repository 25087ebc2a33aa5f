"""Convert between the packed rows of masks and the patterns that reservoirs store.

A pattern has -1 or +1 for each bit of a mask, and no padding. In every plane of a mask, a one must
mean that the weight or unit is kept.

Shape letters: T masks, B states, D bits of a mask, R bytes of a packed row.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from supsup_core.states.layout import StateLayout, TaskState


def patterns(layout: StateLayout, rows: UInt8[np.ndarray, "T R"]) -> Float32[Tensor, "T D"]:
    """Unpack the rows of T masks into patterns, (T, D) on the CPU.

    A bit of one becomes +1, and a bit of zero becomes -1. D is the number of bits of a mask.
    """
    bits = np.unpackbits(rows, axis=1, bitorder="little")
    joined = np.concatenate([bits[:, plane.bits] for plane in layout.planes], axis=1)
    return torch.from_numpy(joined.astype(np.float32)).mul_(2).sub_(1)


def rows_of(layout: StateLayout, states: Float32[Tensor, "B D"]) -> UInt8[np.ndarray, "B R"]:
    """Pack states into rows of bits: +1 becomes a bit of one, and -1 becomes a bit of zero."""
    bits = [gain.cpu().numpy() > 0.5 for gain in gains(layout, states).values()]
    return layout.pack([TaskState(planes) for planes in zip(*bits, strict=True)])


def gains(layout: StateLayout, states: Float[Tensor, "B D"]) -> dict[str, Float[Tensor, "B ..."]]:
    """Map states in [-1, +1] linearly to gains in [0, 1].

    Returns:
        A mapping from the name of each masked tensor to its gains, (B, *shape of the tensor).
    """
    parts = ((states + 1) / 2).split([plane.num_bits for plane in layout.planes], dim=1)
    pairs = zip(layout.planes, parts, strict=True)
    return {plane.tensor: part.unflatten(1, plane.shape) for plane, part in pairs}
