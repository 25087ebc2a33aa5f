"""Superpositions: the weights that a weighted sum of masks leaves of a network.

    W_eff = W * sum_i alpha_i M_i

Shape letters: T masks, Q queries, A coefficient vectors (1 where all queries
share one, else Q), R bytes and F = 8 R bits of a packed row.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int32, UInt8
from torch import Tensor

from supsup_core.arrays import check_shape
from supsup_core.states.layout import MaskLayout, as_floats

# Float32 masks unpacked at once: 64 of LeNet 300-100, fewer of wider networks.
UNPACKED_BYTES = 80_000_000


def superpose_dense(
    weights: Sequence[Float[Tensor, "_ _"]],
    masks: Sequence[Float[Tensor, "T _ _"]],
    alphas: Float[Tensor, " T"],
) -> list[Float[Tensor, "_ _"]]:
    """Effective weights (O, I) from masks held as floats (T, O, I): the plain form."""
    return [
        weight * torch.einsum("t,toi->oi", alphas, mask)
        for weight, mask in zip(weights, masks, strict=True)
    ]


def superpose_counted(
    weights: Sequence[Float[Tensor, "_ _"]],
    layout: MaskLayout,
    counts: Int32[np.ndarray, " F"],
    num_masks: int,
) -> list[Float[Tensor, "_ _"]]:
    """Effective weights (O, I) of masks in equal shares, on the CPU.

    Args:
        weights: fixed, (O, I) of each layer.
        layout: of the packed rows.
        counts: how many masks have a one at each bit of a packed row.
        num_masks: how many masks there are.
    """
    shares = torch.from_numpy(counts).to(torch.float32).div_(num_masks)
    layers = layout.unflatten(shares[None])
    return [weight * share[0] for weight, share in zip(weights, layers, strict=True)]


class PackedMasks:
    """Masks as bit rows, and the two linear maps that inference needs of them.

    Args:
        layout: of the rows.
        rows: uint8 (T, R), T >= 1.
        device: where the products are computed.

    Raises:
        ValueError: rows of another length than the layout's.
    """

    def __init__(
        self, layout: MaskLayout, rows: UInt8[np.ndarray, "T R"], device: torch.device
    ) -> None:
        if not len(rows):
            raise ValueError("masks must be at least one, got none")
        check_shape("rows", rows.shape, (len(rows), layout.row_bytes), "T R")
        self.layout, self.rows, self.device = layout, rows, device

    def __len__(self) -> int:
        return len(self.rows)

    def unpacked(self) -> Iterator[tuple[slice, Float[Tensor, "C F"]]]:
        """The masks as floats, some at a time, with where they stand among the T."""
        at_once = max(1, UNPACKED_BYTES // (4 * self.layout.row_bits))
        for start in range(0, len(self.rows), at_once):
            where = slice(start, start + at_once)
            yield where, as_floats(self.rows[where], self.device)

    def combine(self, alphas: Float[Tensor, "A T"]) -> Float[Tensor, "A F"]:
        """sum_i alpha_i M_i for each vector of coefficients, in a row's layout."""
        check_shape("alphas", alphas.shape, (len(alphas), len(self)), "A T")
        total = torch.zeros((len(alphas), self.layout.row_bits), device=self.device)
        for where, masks in self.unpacked():
            total.addmm_(alphas[:, where], masks)
        return total

    def dot(self, vectors: Float[Tensor, "Q F"]) -> Float[Tensor, "Q T"]:
        """<v_q, M_i> for each vector, given in a row's layout, and each mask."""
        check_shape("vectors", vectors.shape, (len(vectors), self.layout.row_bits), "Q F")
        return torch.cat([vectors @ masks.t() for _, masks in self.unpacked()], dim=1)

    def effective_weights(
        self, weights: Sequence[Float[Tensor, "_ _"]], alphas: Float[Tensor, "A T"]
    ) -> list[Float[Tensor, "A _ _"]]:
        """W * sum_i alpha_i M_i of each layer, (A, O, I)."""
        combined = self.layout.unflatten(self.combine(alphas))
        return [weight * mask for weight, mask in zip(weights, combined, strict=True)]
