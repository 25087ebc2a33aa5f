"""Masks transposed: for each weight a row of bits, one for each task.

So a sum over weights adds rows, hundreds of tasks at a time (kernels/counting.py), and a
weight without evidence is not read at all. This copy of the masks belongs to whoever
infers; a store keeps a row a task.

Shape letters: T masks, R bytes of a packed row, F = 8 R bits of it, W words of a
transposed row, U units, I inputs of a unit, O units of the first layer.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, Float64, Int16, Int64, UInt8, UInt64

from supsup_core.arrays import check_shape
from supsup_core.bits.threads import Threads
from supsup_core.kernels.bits import transpose
from supsup_core.kernels.counting import Sums, add_scaled_rows, read_sums, weigh
from supsup_core.kernels.vectors import LANES
from supsup_core.states.layout import StateLayout

# Tasks of a block: their sums in all columns stay in a core's own cache.
BLOCK_TASKS = 4096
_WORD_BITS = 64


@dataclass(frozen=True)
class UnitValues:
    """Real values of some units and inputs of one layer: outer times the fixed weights.

    Attributes:
        outer: (U, N).
        weights: of the whole layer, (O, I).
        units: which units, (U,).
        inputs: which inputs, (N,).
        first: where the layer's bits begin in a packed row.
    """

    outer: Float32[np.ndarray, "U N"]
    weights: Float32[np.ndarray, "O I"]
    units: Int64[np.ndarray, " U"]
    inputs: Int64[np.ndarray, " N"]
    first: int


@dataclass(frozen=True)
class Weighed:
    """Products of rounded values with all masks.

    Attributes:
        products: <values, M_i> but for rounding.
        slack: by how much rounding may have changed the difference of two products.
        variance: what rounding took off, in squares: of the difference it is half, where
            masks differ like coins.
        num_rows: weights whose bits were read.
    """

    products: Float64[np.ndarray, " T"]
    slack: float
    variance: float
    num_rows: int


@dataclass(frozen=True, eq=False)  # == of arrays has no single truth value
class _Block:
    """Some tasks' masks: their transposed bits, and sums of their first layer's signs."""

    num_tasks: int
    bits: UInt64[np.ndarray, "F W"]
    sign_sums: Int16[np.ndarray, "O D"]

    @property
    def width(self) -> int:
        """W."""
        return int(self.bits.shape[1])


class TransposedMasks:
    """Transposed masks of all tasks, and products with them.

    Args:
        layout: of the packed rows.
        rows: packed masks, T >= 1.
        signs: of the first layer's fixed weights, +1 or -1, (O, I).
        threads: that share the work.
        grown_from: masks of the same network, whose tasks `rows` begins with: their full
            blocks are used again.

    Memory: as many bytes as the packed rows, and 2 bytes a task and unit of the first layer.
    """

    def __init__(
        self,
        layout: StateLayout,
        rows: UInt8[np.ndarray, "T R"],
        signs: Float32[np.ndarray, "O I"],
        threads: Threads,
        grown_from: "TransposedMasks | None" = None,
    ) -> None:
        check_shape("rows", rows.shape, (len(rows), layout.row_bytes), "T R")
        if not len(rows):
            raise ValueError("masks must be at least one, got none")
        self._layout, self._threads = layout, threads
        num_units, num_inputs = signs.shape
        self._signs = UnitValues(
            np.ones(signs.shape, np.float32),
            np.ascontiguousarray(signs),
            np.arange(num_units),
            np.arange(num_inputs),
            first=layout.planes[0].bits.start,
        )
        self._own = threading.local()
        kept: list[_Block] = [] if grown_from is None else grown_from._blocks
        self._blocks: list[_Block] = [b for b in kept if b.num_tasks == BLOCK_TASKS]
        words = np.ascontiguousarray(rows).view(np.uint64)
        for start in range(BLOCK_TASKS * len(self._blocks), len(rows), BLOCK_TASKS):
            self._blocks.append(self._transposed(words[start : start + BLOCK_TASKS]))

    def __len__(self) -> int:
        return sum(block.num_tasks for block in self._blocks)

    @property
    def num_bytes(self) -> int:
        """What this copy of the masks takes."""
        return sum(block.bits.nbytes + block.sign_sums.nbytes for block in self._blocks)

    def weigh(
        self,
        parts: Sequence[UnitValues],
        inverse: float,
        first_layer_terms: tuple[np.ndarray, Float64[np.ndarray, " U"]] | None = None,
    ) -> Weighed:
        """Multiply values, rounded, with all masks.

        Args:
            parts: which units have which values.
            inverse: values times this are rounded to whole numbers, below 2**24.
            first_layer_terms: units of the first layer, and a factor for each: its sum of
                signs under each mask times the factor is added, unrounded.
        """
        pieces = self._pieces(sum(part.outer.size for part in parts))
        found: list[tuple[int, np.ndarray, np.ndarray]] = []

        def add(start: int, end: int) -> None:
            for place, share_start, share_end in pieces[start:end]:
                block = self._blocks[place]
                sums = self._sums_of(block.width)
                bounds, totals = _add_shares(block, parts, inverse, sums, share_start, share_end)
                found.append((place, bounds, totals))

        if len(pieces) == len(self._blocks) == 1:
            add(0, 1)
        else:
            self._threads.split(add, len(pieces))
        # Of one block: the others round the same values, and read the same weights.
        bound, squares, num_rows = np.sum([b for place, b, _ in found if place == 0], axis=0)
        products = np.zeros(len(self))
        for place, _, totals in found:
            first = BLOCK_TASKS * place
            num_tasks = self._blocks[place].num_tasks
            products[first : first + num_tasks] += totals[:num_tasks] / inverse
        if first_layer_terms is not None:
            self._add_sign_sums(products, *first_layer_terms)
        return Weighed(products, bound / inverse, squares / inverse**2, int(num_rows))

    def _pieces(self, num_values: int) -> list[tuple[int, int, int]]:
        """Blocks, and which shares of the units: as many pieces as threads are worth."""
        enough = len(self._blocks) >= self._threads.count
        words = num_values * sum(block.width for block in self._blocks)
        num_shares = 1 if enough or words < _WORDS_WORTH_A_THREAD else self._threads.count
        bounds = [_SHARES * i // num_shares for i in range(num_shares + 1)]
        return [(place, *share) for place in range(len(self._blocks)) for share in pairwise(bounds)]

    def _add_sign_sums(self, products: np.ndarray, units: np.ndarray, factors: np.ndarray) -> None:
        for place, block in enumerate(self._blocks):
            first = BLOCK_TASKS * place
            some = products[first : first + block.num_tasks]
            add_scaled_rows(block.sign_sums, units, factors, some)

    def _sums_of(self, width: int) -> Sums:
        """Working memory of this thread, kept: new pages are dear."""
        sums: dict[int, Sums] = getattr(self._own, "sums", {})
        if width not in sums:
            sums[width] = Sums(width)
        self._own.sums = sums
        return sums[width]

    def _transposed(self, words: UInt64[np.ndarray, "T V"]) -> _Block:
        num_words = -(-len(words) // _WORD_BITS)
        width = -(-num_words // LANES) * LANES
        bits = np.empty((self._layout.row_bits, width), np.uint64)
        self._threads.split(
            lambda start, end: transpose(words, bits, start, end), words.shape[1] // LANES
        )
        return _Block(len(words), bits, self._sign_sums(bits))

    def _sign_sums(self, bits: UInt64[np.ndarray, "F W"]) -> Int16[np.ndarray, "O D"]:
        """Sum of the signs of the weights that a mask keeps, for each unit and task."""
        signs, width = self._signs, bits.shape[1]
        if len(signs.inputs) > np.iinfo(np.int16).max:
            raise ValueError(f"inputs must be at most 32767, got {len(signs.inputs)}")
        found = np.empty((len(signs.units), _WORD_BITS * width), np.int16)
        flat = bits.reshape(-1)

        def add(start: int, end: int) -> None:
            sums = self._sums_of(width)
            for unit in range(start, end):
                _, _, excess, _ = weigh(
                    flat, width, *_arrays(signs), 1.0, sums.state, unit, unit + 1
                )
                totals = np.full(_WORD_BITS * width, -excess, np.int64)
                read_sums(sums.state, totals)
                sums.clear()
                found[unit] = totals

        self._threads.split(add, len(found))
        return found


# Parts of the units that threads are handed: as many threads as that may share a block.
_SHARES = 1 << 16
# Words that are added while another thread would wake up.
_WORDS_WORTH_A_THREAD = 1 << 20


def _add_shares(
    block: _Block,
    parts: Sequence[UnitValues],
    inverse: float,
    sums: Sums,
    start: int,
    end: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Bound, squares and rows, as `weigh` returns them; and whole sums (64 W,)."""
    flat, excess, bounds = block.bits.reshape(-1), 0, np.zeros(3)
    for part in parts:
        share = len(part.units) * start // _SHARES, len(part.units) * end // _SHARES
        bound, squares, too_much, num_rows = weigh(
            flat, block.width, *_arrays(part), inverse, sums.state, *share
        )
        bounds += (bound, squares, num_rows)
        excess += too_much
    totals = np.full(_WORD_BITS * block.width, -excess, np.int64)
    read_sums(sums.state, totals)
    sums.clear()
    return bounds, totals


def _arrays(part: UnitValues) -> tuple[object, ...]:
    return part.outer, part.weights, part.units, part.inputs, part.first
