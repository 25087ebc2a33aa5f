"""Shuffled copies of masks: a reference for the slope of a mask that belongs to another task.

A shuffled copy keeps, in each unit, as many weights of each sign as the mask does, but at random
places. So the copy pushes each unit up or down as strongly as the mask does: for example, it keeps
the superfluous outputs low. But the copy has no information about any task. An untrained mask
cannot be such a reference, because it does not push the units in this way. All trained masks do, so
they have smaller slopes than untrained masks for every batch.

Shape letters: T masks, S shuffles, R bytes of a packed row, G gains of a tensor.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Int64, UInt8
from torch import Tensor

from supsup_core.networks.protocol import MaskedTensor
from supsup_core.states.layout import StateLayout
from supsup_core.streams import Role, stream


class Shuffles:
    """A few fixed rules that shuffle the bits of packed rows.

    A rule moves the gains of each tensor among the weights of one unit (an entry of the tensor's
    first axis) that have the same sign. Gains over units are moved among all units of the tensor.
    All planes of a tensor are moved in the same way, and floats stay unchanged.

    Args:
        layout: the layout of the rows.
        weights: a mapping from tensor name to the network's fixed weights.
        num_shuffles: S, the number of rules.
        seed: the run's seed. Rule j depends only on the seed, the weights and j.
    """

    def __init__(
        self, layout: StateLayout, weights: Mapping[str, Tensor], num_shuffles: int, seed: int
    ) -> None:
        self._layout, self._weights, self._seed = layout, weights, seed
        self._num_shuffles = num_shuffles

    def __len__(self) -> int:
        return self._num_shuffles

    def of(self, rows: UInt8[np.ndarray, "T R"], chosen: Sequence[int]) -> UInt8[np.ndarray, "T R"]:
        """Shuffle T packed rows.

        Args:
            rows: (T, R) the packed rows.
            chosen: for each row, the index of the rule that shuffles the row, in [0, S).
        """
        bits = np.unpackbits(rows, axis=1, bitorder="little")
        for row, index in zip(bits, chosen, strict=True):
            for plane in self._layout.planes:
                row[plane.bits] = row[plane.bits][self._moves[plane.tensor][index]]
        return np.packbits(bits, axis=1, bitorder="little")

    @cached_property
    def _moves(self) -> dict[str, Int64[np.ndarray, "S G"]]:
        """For each tensor and rule, the index of the gain that moves to each place."""
        found = {}
        for number, tensor in enumerate(self._layout.tensors):
            groups = self._groups(tensor)
            places = np.argsort(groups, kind="stable")
            moves = np.empty((len(self), len(groups)), np.int64)
            for index, move in enumerate(moves):
                keys = stream(self._seed, Role.SHUFFLES, index, number).random(len(groups))
                move[places] = np.lexsort((keys, groups))
            found[tensor.name] = moves
        return found

    def _groups(self, tensor: MaskedTensor) -> Int64[np.ndarray, " G"]:
        """Return a number for each gain of a tensor. Gains with equal numbers may be exchanged."""
        if tensor.over == "units":
            return np.zeros(tensor.num_gains, np.int64)
        units = np.arange(tensor.shape[0]).repeat(tensor.num_gains // tensor.shape[0])
        positive = self._weights[tensor.source].cpu().numpy().reshape(-1) > 0
        return 2 * units + positive
