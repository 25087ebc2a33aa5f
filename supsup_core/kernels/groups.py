"""N:M masks on the CPU: keep the weights with the n largest magnitudes of each group of m.

Scores are stored as magnitudes (patterns.py). The groups are made along the last dimension. All
pairs of a group are compared, one distance in the group after another, for a whole row at once. So
the loops have no branches, and LLVM vectorises them.

Shape letters: I values of a row.
"""

from collections.abc import Sequence
from typing import no_type_check

import numpy as np
from torch import Tensor

from supsup_core.kernels.bfloat16 import real, sign_of, stored
from supsup_core.kernels.compiled import compiled
from supsup_core.kernels.patterns import BLOCK, Magnitudes, reflect_block, reflect_each


@compiled()
@no_type_check
def _settle(
    magnitudes, patterns, odd, signs, masked, zero, m, places, num_kept
):  # pragma: no cover
    """Make negative magnitudes positive, and write the signs of the kept weights into `masked`.

    `m` is the number of values of a group. For each of the I values of a row, `places` has its
    place in its group, from 0, and `num_kept` has the number of values of its group that are kept.
    """
    kind = patterns.dtype.type
    size = places.size
    # The values of a row, between m values that are below all others.
    row = np.full(size + 2 * m, kind(-1), patterns.dtype)
    here = row[m : m + size]
    ranks = np.empty(size, patterns.dtype)
    for start in range(0, patterns.size, size):
        stop = start + size
        end = start + size // BLOCK * BLOCK
        for block in range(start, end, BLOCK):
            reflect_block(magnitudes, patterns, odd, block)
        reflect_each(magnitudes, patterns, odd, end, stop)
        here[:] = patterns[start:stop]
        ranks[:] = kind(0)
        # The rank of a value is the number of values of its group that go before it: the larger
        # ones, and of equal values those before it.
        for distance in range(1, m):
            before, after = row[m - distance :], row[m + distance :]
            most, least = kind(m - distance), kind(distance)
            for i in range(size):
                ranks[i] += kind((after[i] > here[i]) & (places[i] < most))
                ranks[i] += kind((before[i] >= here[i]) & (places[i] >= least))
        of_row, written = signs[start:stop], masked[start:stop]
        for i in range(size):
            sign = stored(sign_of(real(of_row[i])), zero)
            written[i] = sign if ranks[i] < num_kept[i] else zero


class TopOfGroups:
    """The work after each step of the optimiser: correct negative magnitudes, and write the mask.

    Args:
        magnitudes: magnitudes of the scores, at least one-dimensional; see Magnitudes for this and
            the next three arguments.
        odd: the odd tensors of the optimiser's state.
        signs: tensor with the signs of the weights.
        masked: the output of `settle`: the sign of each weight that is kept, and 0 for the others.
            If magnitudes are equal, the first of the group is kept.
        n: number of weights to keep of each group.
        m: number of weights of a group, along the last dimension.
        last: number of weights to keep of the last group of a row, if it is smaller than m.

    Raises:
        ValueError: n, m or last is out of range, or the tensors do not fit; see Magnitudes.
        RuntimeError: a tensor is not contiguous.
    """

    def __init__(
        self,
        magnitudes: Tensor,
        odd: Sequence[Tensor],
        signs: Tensor,
        masked: Tensor,
        n: int,
        m: int,
        last: int,
    ) -> None:
        if not (1 <= n <= m and 1 <= last <= m):
            raise ValueError(f"n and last must be in [1, m={m}], got {n} and {last}: try 1")
        self._of, self._m = Magnitudes(magnitudes, odd, signs, masked), m
        kind, size = self._of.patterns.dtype, magnitudes.shape[-1]
        self._places = (np.arange(size) % m).astype(kind)
        self._num_kept = np.full(size, n, kind)
        if size % m:
            self._num_kept[-(size % m) :] = last

    def settle(self) -> None:
        """Make negative magnitudes positive, and write the new mask into `masked`."""
        of = self._of
        arrays = of.magnitudes, of.patterns, of.odd, of.signs, of.masked, of.zero
        _settle(*arrays, self._m, self._places, self._num_kept)
