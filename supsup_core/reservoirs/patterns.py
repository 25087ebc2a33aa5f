"""Masks as a reservoir sees them: -1 and +1 for every bit, without the gaps of a packed row.

Shape letters: T masks, B states, D bits of a mask, R bytes of a packed row, O and I as in a
layer.
"""

from math import prod

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from supsup_core.states.layout import MaskLayout


def patterns(layout: MaskLayout, rows: UInt8[np.ndarray, "T R"]) -> Float32[Tensor, "T D"]:
    """The masks of packed rows, on the CPU."""
    bits = np.concatenate([m.reshape(len(rows), -1) for m in layout.unpack(rows)], axis=1)
    return torch.from_numpy(bits.astype(np.float32)).mul_(2).sub_(1)


def rows_of(layout: MaskLayout, states: Float32[Tensor, "B D"]) -> UInt8[np.ndarray, "B R"]:
    """The packed rows of states of -1 and +1."""
    return layout.pack([gain.cpu().numpy() > 0.5 for gain in gains(layout, states)])


def gains(layout: MaskLayout, states: Float[Tensor, "B D"]) -> list[Float[Tensor, "B _ _"]]:
    """From 0 to 1 where states are from -1 to +1, shaped as the layers' masks."""
    parts = ((states + 1) / 2).split([prod(shape) for shape in layout.mask_shapes], dim=1)
    return [part.unflatten(1, shape) for part, shape in zip(parts, layout.mask_shapes, strict=True)]
