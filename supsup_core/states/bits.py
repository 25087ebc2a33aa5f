"""Stored states, with the two linear maps that inference needs.

`combine` computes the sum over i of alpha_i gain_i, for coefficients alpha and the gains of all
states i. `dot` computes the product <slope, gain_i> for every state i. It is the transpose of
`combine`.

Shape letters: T states, Q queries, A coefficient vectors (1 if all queries share one vector,
otherwise Q), C states of one part, R bytes and F = 8 R bits of a packed row.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int32, UInt8
from torch import Tensor

from supsup_core.arrays import check_shape
from supsup_core.networks.protocol import Floats, Gains
from supsup_core.states.layout import StateLayout, as_floats

# States are unpacked to float32 in parts. This is the largest size of a part. With LeNet 300-100
# and 500 outputs, a part has 64 masks. With a wider network, a part has fewer masks.
UNPACKED_BYTES = 80_000_000


class BitStates:
    """States that are stored as packed rows. For the methods, see the protocol States.

    Args:
        layout: the layout of the packed rows.
        rows: (T, R) the packed rows, at least one. The array is not copied, so it must not change.
        device: the device of the computations and of all returned tensors.

    Raises:
        ValueError: there is no row, or the rows do not have the length R of the layout.
    """

    def __init__(
        self, layout: StateLayout, rows: UInt8[np.ndarray, "T R"], device: torch.device
    ) -> None:
        if not len(rows):
            raise ValueError("rows must hold one state or more, got none: pass the row of one task")
        check_shape("rows", rows.shape, (len(rows), layout.row_bytes), "T R")
        self.layout, self.rows, self.device = layout, rows, device
        self._scales = {
            tensor: torch.from_numpy(self._stored(rows)[place.spec.name]).to(device).reshape(-1)
            for tensor, place in layout.scales.items()
        }

    def __len__(self) -> int:
        return len(self.rows)

    def grown(self, rows: UInt8[np.ndarray, "T R"]) -> "BitStates":
        """Make states with more rows. `rows` has all packed rows, and is not copied."""
        return BitStates(self.layout, rows, self.device)

    def gains(self, task: int) -> dict[str, Tensor]:
        """Return the gains of one state: a mapping from a masked tensor's name to its gains."""
        rows = self.rows[task : task + 1]
        gains = self._scaled(self.layout.unflatten(as_floats(rows, self.device)), slice(task, None))
        return {name: gain[0] for name, gain in gains.items()}

    def floats(self, task: int) -> dict[str, Tensor]:
        """Return the floats of one state: a mapping from the name of an array to the array."""
        stored = self._stored(self.rows[task : task + 1])
        return {name: torch.from_numpy(v[0, ...]).to(self.device) for name, v in stored.items()}

    def unpacked(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Unpack the states in parts, in the order of the states.

        Yields:
            For each part of C states, two mappings. The first maps the name of each masked tensor
            to its gains, (C, *shape). The second maps the name of each array of floats to its
            values, (C, *shape).
        """
        for where, bits in self._bits():
            stored = self._stored(self.rows[where])
            floats = {name: torch.from_numpy(v).to(self.device) for name, v in stored.items()}
            yield self._scaled(self.layout.unflatten(bits), where), floats

    def combine(self, alphas: Float[Tensor, "A T"]) -> dict[str, Tensor]:
        """Compute a weighted sum of the gains of all states; see States.combine."""
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
        """Compute the product of each query's slopes and each state's gains; see States.dot."""
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
        """Unpack the bits of C states at a time. Yield the range of task numbers, and the bits."""
        at_once = max(1, UNPACKED_BYTES // (4 * self.layout.row_bits))
        for start in range(0, len(self.rows), at_once):
            where = slice(start, start + at_once)
            yield where, as_floats(self.rows[where], self.device)

    def _stored(self, rows: UInt8[np.ndarray, "T R"]) -> dict[str, np.ndarray]:
        return self.layout.read_floats(rows)

    def _scaled(self, gains: dict[str, Tensor], where: slice) -> dict[str, Tensor]:
        """Multiply the gains of C states by the scales of these states.

        Args:
            gains: a mapping from tensor name to gains (C, *shape). It is changed in place and
                returned.
            where: a range of task numbers. The gains belong to the first C tasks of this range.
        """
        for name, scale in self._scales.items():
            gain = gains[name]
            own = scale[where][: len(gain)]
            gains[name] = gain * own.reshape(-1, *(1 for _ in gain.shape[1:]))
        return gains


def superpose_counted(
    layout: StateLayout, counts: Int32[np.ndarray, " F"], num_masks: int
) -> dict[str, Tensor]:
    """Compute the superposition of states with equal coefficients, from counts of ones.

    Args:
        layout: the layout of the packed rows. It must have no scales.
        counts: (F,) for each of the F bits of a packed row, the number of states that have a one.
        num_masks: number of states.

    Returns:
        A mapping from the name of each masked tensor to its gains in the superposition, on the CPU.
    """
    shares = torch.from_numpy(counts).to(torch.float32).div_(num_masks)
    return {name: gain[0] for name, gain in layout.unflatten(shares[None]).items()}


class DenseStates:
    """States that are stored unpacked, for tests. For the methods, see the protocol States.

    Args:
        gains: a mapping from the name of each masked tensor to the gains of T states, (T, *shape).
        floats: a mapping from the name of each array of floats to its values, (T, *shape).
    """

    def __init__(self, gains: Gains, floats: Floats) -> None:
        self._gains, self._floats = gains, floats
        self.device = next(iter(gains.values())).device

    def __len__(self) -> int:
        return len(next(iter(self._gains.values())))

    def gains(self, task: int) -> dict[str, Tensor]:
        """Return the gains of one state: a mapping from a masked tensor's name to its gains."""
        return {name: gain[task] for name, gain in self._gains.items()}

    def floats(self, task: int) -> dict[str, Tensor]:
        """Return the floats of one state: a mapping from the name of an array to the array."""
        return {name: values[task] for name, values in self._floats.items()}

    def unpacked(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Yield the gains and the floats of all states as one part; see States.unpacked."""
        yield dict(self._gains), dict(self._floats)

    def combine(self, alphas: Float[Tensor, "A T"]) -> dict[str, Tensor]:
        """Compute a weighted sum of the gains, as States.combine. Autograd can differentiate it."""
        return {n: torch.einsum("at,t...->a...", alphas, gain) for n, gain in self._gains.items()}

    def dot(self, slopes: Gains) -> Float[Tensor, "Q T"]:
        """Compute the product of each query's slopes and each state's gains; see States.dot."""
        parts = [slopes[n].flatten(1) @ gain.flatten(1).t() for n, gain in self._gains.items()]
        return torch.stack(parts).sum(dim=0)
