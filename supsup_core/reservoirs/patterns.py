"""Masks as a reservoir sees them: -1 and +1 for every bit, without the gaps of a packed row.

The states of these masks are planes of keep bits alone.

Shape letters: T masks, B states, D bits of a mask, R bytes of a packed row.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from supsup_core.states.layout import StateLayout, TaskState


def patterns(layout: StateLayout, rows: UInt8[np.ndarray, "T R"]) -> Float32[Tensor, "T D"]:
    """The masks of packed rows, on the CPU."""
    bits = np.unpackbits(rows, axis=1, bitorder="little")
    joined = np.concatenate([bits[:, plane.bits] for plane in layout.planes], axis=1)
    return torch.from_numpy(joined.astype(np.float32)).mul_(2).sub_(1)


def rows_of(layout: StateLayout, states: Float32[Tensor, "B D"]) -> UInt8[np.ndarray, "B R"]:
    """The packed rows of states of -1 and +1."""
    bits = [gain.cpu().numpy() > 0.5 for gain in gains(layout, states).values()]
    return layout.pack([TaskState(planes) for planes in zip(*bits, strict=True)])


def gains(layout: StateLayout, states: Float[Tensor, "B D"]) -> dict[str, Float[Tensor, "B ..."]]:
    """From 0 to 1 where states are from -1 to +1: gains (B, *shape) of each masked tensor."""
    parts = ((states + 1) / 2).split([plane.num_bits for plane in layout.planes], dim=1)
    pairs = zip(layout.planes, parts, strict=True)
    return {plane.tensor: part.unflatten(1, plane.shape) for plane, part in pairs}
