"""States of planes: the two linear maps that inference needs of them.

    sum_i alpha_i gain_i      and its transpose      <slope, gain_i> for every i

Shape letters: T states, Q queries, A coefficient vectors (1 where all queries share one, else Q),
C states at a time, R bytes and F = 8 R bits of a packed row.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int32, UInt8
from torch import Tensor

from supsup_core.arrays import check_shape
from supsup_core.networks.protocol import Floats, Gains
from supsup_core.states.layout import StateLayout, as_floats

# Float32 bits unpacked at once: 64 masks of LeNet 300-100, fewer of wider networks.
UNPACKED_BYTES = 80_000_000


class BitStates:
    """States as rows of bits and floats.

    Args:
        layout: where everything lies in a row.
        rows: uint8 (T, R), T >= 1; kept, not copied.
        device: where the products are computed.

    Raises:
        ValueError: no row, or rows of another length.
    """

    def __init__(
        self, layout: StateLayout, rows: UInt8[np.ndarray, "T R"], device: torch.device
    ) -> None:
        if not len(rows):
            raise ValueError("rows must hold one state or more, got none")
        check_shape("rows", rows.shape, (len(rows), layout.row_bytes), "T R")
        self.layout, self.rows, self.device = layout, rows, device
        self._scales = {
            tensor: torch.from_numpy(self._stored(rows)[place.spec.name]).to(device).reshape(-1)
            for tensor, place in layout.scales.items()
        }

    def __len__(self) -> int:
        return len(self.rows)

    def gains(self, task: int) -> dict[str, Tensor]:
        """The gains of one state, by masked tensor."""
        rows = self.rows[task : task + 1]
        gains = self._scaled(self.layout.unflatten(as_floats(rows, self.device)), slice(task, None))
        return {name: gain[0] for name, gain in gains.items()}

    def floats(self, task: int) -> dict[str, Tensor]:
        """The floats of one state, by name."""
        stored = self._stored(self.rows[task : task + 1])
        return {name: torch.from_numpy(v[0, ...]).to(self.device) for name, v in stored.items()}

    def unpacked(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Gains (C, *shape) and floats (C, *shape) of some states at a time, in order."""
        for where, bits in self._bits():
            stored = self._stored(self.rows[where])
            floats = {name: torch.from_numpy(v).to(self.device) for name, v in stored.items()}
            yield self._scaled(self.layout.unflatten(bits), where), floats

    def combine(self, alphas: Float[Tensor, "A T"]) -> dict[str, Tensor]:
        """Add up the gains of all states for each vector of coefficients: (A, *shape)."""
        check_shape("alphas", alphas.shape, (len(alphas), len(self)), "A T")
        total = torch.zeros((len(alphas), self.layout.row_bits), device=self.device)
        for where, bits in self._bits():
            if not self._scales:
                total.addmm_(alphas[:, where], bits)
                continue
            for plane in self.layout.planes:
                scale = self._scales.get(plane.tensor)
                shares = alphas[:, where] if scale is None else alphas[:, where] * scale[where]
                total[:, plane.bits] += shares @ bits[:, plane.bits]
        return self.layout.unflatten(total)

    def dot(self, slopes: Gains) -> Float[Tensor, "Q T"]:
        """<slopes_q, gain_i> for each query's slopes (Q, *shape) and each state."""
        vectors = self.layout.flatten(slopes)
        if not self._scales:
            return torch.cat([vectors @ bits.t() for _, bits in self._bits()], dim=1)
        found = vectors.new_zeros((len(vectors), len(self)))
        for where, bits in self._bits():
            for plane in self.layout.planes:
                part = vectors[:, plane.bits] @ bits[:, plane.bits].t()
                scale = self._scales.get(plane.tensor)
                found[:, where] += part if scale is None else part * scale[where]
        return found

    def _bits(self) -> Iterator[tuple[slice, Float[Tensor, "C F"]]]:
        """The bits as floats, some states at a time, with where they stand among the T."""
        at_once = max(1, UNPACKED_BYTES // (4 * self.layout.row_bits))
        for start in range(0, len(self.rows), at_once):
            where = slice(start, start + at_once)
            yield where, as_floats(self.rows[where], self.device)

    def _stored(self, rows: UInt8[np.ndarray, "T R"]) -> dict[str, np.ndarray]:
        return self.layout.read_floats(rows)

    def _scaled(self, gains: dict[str, Tensor], where: slice) -> dict[str, Tensor]:
        """Multiply gains (C, *shape) of the states from `where` on by their scales."""
        for name, scale in self._scales.items():
            gain = gains[name]
            own = scale[where][: len(gain)]
            gains[name] = gain * own.reshape(-1, *(1 for _ in gain.shape[1:]))
        return gains


def superpose_counted(
    layout: StateLayout, counts: Int32[np.ndarray, " F"], num_masks: int
) -> dict[str, Tensor]:
    """Gains of states without scales in equal shares, on the CPU.

    Args:
        layout: of the packed rows.
        counts: how many states have a one at each bit of a packed row.
        num_masks: how many states there are.
    """
    shares = torch.from_numpy(counts).to(torch.float32).div_(num_masks)
    return {name: gain[0] for name, gain in layout.unflatten(shares[None]).items()}


class DenseStates:
    """The plain reference: gains held as floats, (T, *shape) of each masked tensor."""

    def __init__(self, gains: Gains, floats: Floats) -> None:
        self._gains, self._floats = gains, floats
        self.device = next(iter(gains.values())).device

    def __len__(self) -> int:
        return len(next(iter(self._gains.values())))

    def gains(self, task: int) -> dict[str, Tensor]:
        """The gains of one state."""
        return {name: gain[task] for name, gain in self._gains.items()}

    def floats(self, task: int) -> dict[str, Tensor]:
        """The floats of one state."""
        return {name: values[task] for name, values in self._floats.items()}

    def unpacked(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """All states at once."""
        yield dict(self._gains), dict(self._floats)

    def combine(self, alphas: Float[Tensor, "A T"]) -> dict[str, Tensor]:
        """sum_i alpha_i gain_i, differentiable in alpha."""
        return {n: torch.einsum("at,t...->a...", alphas, gain) for n, gain in self._gains.items()}

    def dot(self, slopes: Gains) -> Float[Tensor, "Q T"]:
        """<slopes_q, gain_i>, added up over the masked tensors."""
        parts = [slopes[n].flatten(1) @ gain.flatten(1).t() for n, gain in self._gains.items()]
        return torch.stack(parts).sum(dim=0)
