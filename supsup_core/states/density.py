"""How many gains of a state are not zero, counted in packed rows.

Shape letters: T states, R bytes of a row.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64, UInt8

from supsup_core.states.layout import Plane, StateLayout


def density(layout: StateLayout, rows: UInt8[np.ndarray, "T R"]) -> np.ndarray:
    """Compute the density of T states: for each state, the fraction of gains that are not zero.

    Only the first plane of each tensor is counted, because later planes have ones only where the
    first plane has a one. Without planes, the density is 1.

    Returns:
        (T,) densities in float64.
    """
    if not layout.planes:
        return np.ones(len(rows))
    found = list(_ones(layout, rows))
    return np.asarray(sum(ones for _, ones in found) / sum(plane.num_bits for plane, _ in found))


def uniform_tensors(
    layout: StateLayout, rows: UInt8[np.ndarray, "T R"]
) -> list[tuple[int, str, bool]]:
    """Find states that keep no gain or every gain of a tensor.

    Only the first plane of each tensor is counted, as in `density`.

    Returns:
        One tuple for each such state and tensor: (index of the row, name of the tensor, whether
        every gain is kept). They are in the order of the rows.
    """
    found = [
        (int(i), plane.tensor, bool(ones[i]))
        for plane, ones in _ones(layout, rows)
        for i in np.flatnonzero((ones == 0) | (ones == plane.num_bits))
    ]
    return sorted(found, key=lambda one: one[0])


def _ones(
    layout: StateLayout, rows: UInt8[np.ndarray, "T R"]
) -> Iterator[tuple[Plane, Int64[np.ndarray, " T"]]]:
    """Yield the first plane of each tensor, and for each row the number of ones in this plane."""
    first: dict[str, Plane] = {}
    for plane in layout.planes:
        first.setdefault(plane.tensor, plane)
    for plane in first.values():
        # The last byte may end with padding bits, which are zero and do not change the count.
        end = plane.byte_offset + -(-plane.num_bits // 8)
        yield plane, np.bitwise_count(rows[:, plane.byte_offset : end]).sum(axis=1, dtype=np.int64)
