"""Stored states whose gains are floats: heads, products of two factors, or ones.

Shape letters: T states, Q queries, A coefficient vectors, C states of one part, R bytes of a packed
row, O outputs and I inputs of a tensor.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from supsup_core.arrays import check_shape
from supsup_core.networks.protocol import Gains, MaskedTensor
from supsup_core.states.layout import StateLayout

# States are read in parts of at most this size, so that combine and dot need little memory.
_READ_BYTES = 80_000_000


class FloatStates:
    """States without planes of bits, stored as packed rows. For the methods, see States.

    Args:
        layout: the layout of the packed rows. It has no planes.
        rows: (T, R) the packed rows, at least one. The array is not copied, so it must not change.
        device: the device of the computations and of all returned tensors.

    Raises:
        ValueError: the layout has planes, there is no row, or the rows do not have the length R of
            the layout.
    """

    def __init__(
        self, layout: StateLayout, rows: UInt8[np.ndarray, "T R"], device: torch.device
    ) -> None:
        if layout.planes:
            raise ValueError(
                f"layout must have no planes, got {len(layout.planes)}: use BitStates instead"
            )
        if not len(rows):
            raise ValueError("rows must hold one state or more, got none: pass the row of one task")
        check_shape("rows", rows.shape, (len(rows), layout.row_bytes), "T R")
        self.layout, self.rows, self.device = layout, rows, device

    def __len__(self) -> int:
        return len(self.rows)

    def grown(self, rows: UInt8[np.ndarray, "T R"]) -> "FloatStates":
        """Make states with more rows. `rows` has all packed rows, and is not copied."""
        return FloatStates(self.layout, rows, self.device)

    def gains(self, task: int) -> dict[str, Tensor]:
        """Return the gains of one state: a mapping from a masked tensor's name to its gains."""
        floats = self._read(slice(task, task + 1))
        return {t.name: self._gain(t, floats, 1)[0] for t in self.layout.tensors}

    def floats(self, task: int) -> dict[str, Tensor]:
        """Return the floats of one state: a mapping from the name of an array to the array."""
        return {name: v[0, ...] for name, v in self._read(slice(task, task + 1)).items()}

    def unpacked(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Yield the gains and floats of C states at a time; see States.unpacked."""
        for where, floats in self._parts():
            num = len(self.rows[where])
            yield {t.name: self._gain(t, floats, num) for t in self.layout.tensors}, floats

    def combine(self, alphas: Float[Tensor, "A T"]) -> dict[str, Tensor]:
        """Compute a weighted sum of the gains of all states; see States.combine."""
        check_shape("alphas", alphas.shape, (len(alphas), len(self)), "A T")
        total = {
            t.name: torch.zeros((len(alphas), *t.shape), device=self.device)
            for t in self.layout.tensors
        }
        for where, floats in self._parts():
            for tensor in self.layout.tensors:
                total[tensor.name] += self._weighted(tensor, floats, alphas[:, where])
        return total

    def dot(self, slopes: Gains) -> Float[Tensor, "Q T"]:
        """Compute the product of each query's slopes and each state's gains; see States.dot."""
        parts = [
            torch.stack(
                [self._products(t, floats, slopes[t.name], where) for t in self.layout.tensors]
            ).sum(dim=0)
            for where, floats in self._parts()
        ]
        return torch.cat(parts, dim=1)

    def _read(self, where: slice) -> dict[str, Tensor]:
        stored = self.layout.read_floats(self.rows[where])
        return {name: torch.from_numpy(v).to(self.device) for name, v in stored.items()}

    def _parts(self) -> Iterator[tuple[slice, dict[str, Tensor]]]:
        """Read the floats of C states at a time. Yield a range of task numbers, and the floats."""
        at_once = max(1, _READ_BYTES // self.layout.row_bytes)
        for start in range(0, len(self.rows), at_once):
            where = slice(start, min(start + at_once, len(self.rows)))
            yield where, self._read(where)

    def _gain(self, tensor: MaskedTensor, floats: Gains, num: int) -> Float[Tensor, "C ..."]:
        """Compute the gains of one tensor for C states."""
        if head := self.layout.heads.get(tensor.name):
            return floats[head.spec.name]
        if pair := self.layout.factors.get(tensor.name):
            outputs, inputs = (floats[place.spec.name] for place in pair)
            return _spread(outputs[:, :, None] * inputs[:, None, :], tensor)
        return torch.ones((num, *tensor.shape), device=self.device)

    def _weighted(
        self, tensor: MaskedTensor, floats: Gains, alphas: Float[Tensor, "A C"]
    ) -> Float[Tensor, "A ..."]:
        """Compute the weighted sum of the gains of one tensor over C states."""
        if head := self.layout.heads.get(tensor.name):
            return torch.einsum("ac,c...->a...", alphas, floats[head.spec.name])
        if pair := self.layout.factors.get(tensor.name):
            outputs, inputs = (floats[place.spec.name] for place in pair)
            return _spread((alphas[:, :, None] * outputs).mT @ inputs, tensor)
        total = alphas.sum(dim=1).reshape(-1, *(1 for _ in tensor.shape))
        return total.expand(-1, *tensor.shape)

    def _products(
        self, tensor: MaskedTensor, floats: Gains, slopes: Float[Tensor, "Q ..."], where: slice
    ) -> Float[Tensor, "Q C"]:
        """Compute the products of Q queries' slopes and the gains of one tensor of C states."""
        if head := self.layout.heads.get(tensor.name):
            return slopes.flatten(1) @ floats[head.spec.name].flatten(1).mT
        if pair := self.layout.factors.get(tensor.name):
            outputs, inputs = (floats[place.spec.name] for place in pair)
            whole = slopes.flatten(3).sum(dim=3) if slopes.ndim > 3 else slopes  # (Q, O, I)
            return torch.einsum("qoc,co->qc", whole @ inputs.mT, outputs)
        num = len(self.rows[where])
        return slopes.flatten(1).sum(dim=1, keepdim=True).expand(-1, num)


def _spread(matrix: Float[Tensor, "C O I"], tensor: MaskedTensor) -> Float[Tensor, "C O I ..."]:
    """Repeat each value for all positions of a kernel, if the tensor is a convolution's."""
    further = tensor.shape[2:]
    return matrix.reshape(*matrix.shape, *(1 for _ in further)).expand(*matrix.shape, *further)
