"""Transpose masks: one row of bits per weight, with one bit per task.

The product of the evidence and a mask is a sum over weights. In this layout, the sums of hundreds
of tasks are computed at the same time by adding rows (kernels/counting.py). A row is skipped if its
weight has no evidence, so a query of one image reads a quarter of the bits. Products on packed rows
(AND and popcount) would read every bit of every mask once per bit plane of the evidence. The
process that infers holds the transposed masks as a second copy, which is as large as the packed
masks. The store keeps one packed row per task.

Shape letters: T masks, R bytes, V 64-bit words and F = 8 R bits of a packed row, W 64-bit words
of a transposed row, D = 64 W tasks of a block with padding, U units and N inputs that have
values, O units and I inputs of a layer.
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

# Number of tasks of a block. With this number, the binary counters that hold the sums of a block's
# tasks fit into the cache of one core.
BLOCK_TASKS = 4096
_WORD_BITS = 64


@dataclass(frozen=True)
class UnitValues:
    """Values of some weights of one layer. A value is an entry of `outer` times a weight.

    Attributes:
        outer: (U, N) factors. Row u and column n belong to weights[units[u], inputs[n]].
        weights: (O, I) fixed weights of the whole layer.
        units: (U,) indices of the units that have values.
        inputs: (N,) indices of the inputs that have values.
        first: index of the layer's first bit in a packed row.
    """

    outer: Float32[np.ndarray, "U N"]
    weights: Float32[np.ndarray, "O I"]
    units: Int64[np.ndarray, " U"]
    inputs: Int64[np.ndarray, " N"]
    first: int


@dataclass(frozen=True)
class Weighed:
    """The products of rounded values and T masks.

    Attributes:
        products: (T,) for each mask, the sum of the rounded values of all weights that it keeps.
        slack: upper bound on the error that rounding causes in the difference of two products.
        variance: sum of the squared rounding errors. If the bits of masks are like fair coin
            tosses, the variance of the error in the difference of two products is half of this sum.
        num_rows: number of weights whose bits were read.
    """

    products: Float64[np.ndarray, " T"]
    slack: float
    variance: float
    num_rows: int


@dataclass(frozen=True, eq=False)  # comparing arrays gives an array, not a bool
class _Block:
    """The transposed masks of some successive tasks.

    Attributes:
        num_tasks: number of tasks, at most BLOCK_TASKS.
        bits: (F, W) one transposed row for each bit of a packed row. A transposed row has one bit
            per task. The bits after the last task are zero.
        sign_sums: for each unit of the first layer and each task, the sum of the signs of the
            weights that the task's mask keeps.
    """

    num_tasks: int
    bits: UInt64[np.ndarray, "F W"]
    sign_sums: Int16[np.ndarray, "O D"]

    @property
    def width(self) -> int:
        """W, the number of 64-bit words of a transposed row."""
        return int(self.bits.shape[1])


class TransposedMasks:
    """The transposed masks of all tasks, for products of real values with every mask.

    They take as many bytes of memory as the packed rows, plus 2 bytes for each unit of the first
    layer and each task.

    Args:
        layout: layout of the packed rows.
        rows: (T, R) packed masks, at least one.
        signs: (O, I) signs of the first layer's fixed weights, +1 or -1.
        threads: the threads that divide the work.
        grown_from: the transposed masks of the first tasks of `rows`. Their full blocks are used
            again. If None, all rows are transposed.

    Raises:
        ValueError: `rows` is empty, the length of a row is not R, or the first layer has more than
            32767 inputs.
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
            raise ValueError("rows must contain at least one mask, got none: pass packed masks")
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
        """Bytes of memory that the transposed masks and the sums of signs take."""
        return sum(block.bits.nbytes + block.sign_sums.nbytes for block in self._blocks)

    def weigh(
        self,
        parts: Sequence[UnitValues],
        inverse: float,
        first_layer_terms: tuple[np.ndarray, Float64[np.ndarray, " U"]] | None = None,
    ) -> Weighed:
        """Round values, and multiply them with all masks.

        Args:
            parts: the values, for example one part per layer.
            inverse: factor that multiplies the values before they are rounded to whole numbers.
                The magnitudes of the whole numbers must be below 2**24.
            first_layer_terms: indices of some units of the first layer, and one factor per unit.
                For each unit, the signs of the weights that a mask keeps are summed. The sum times
                the factor is added to the mask's product, without rounding. If None, nothing is
                added.
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
        # Only the bounds of block 0 are used. The bounds of other blocks are the same, because all
        # blocks round the same values and read the same weights.
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
        """Divide the work into pieces: one piece per block, or one piece per block and thread.

        Several threads work on the same block only if there are fewer blocks than threads and the
        work is large.

        Returns:
            For each piece, three numbers: the index of the block, the index of the first share of
            the block's units, and the index after the last share. (The units are divided into
            _SHARES shares.)
        """
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
        """Return this thread's working memory.

        It is reused by later calls, because the first use of a new memory page is slow.
        """
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
        """For each unit and task, sum the signs of the weights that the task's mask keeps."""
        signs, width = self._signs, bits.shape[1]
        if len(signs.inputs) > np.iinfo(np.int16).max:
            raise ValueError(
                f"the first layer must have at most 32767 inputs, got {len(signs.inputs)}: "
                "use smaller images"
            )
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


# The units of a block are divided into this many shares, so at most this many threads can work on
# the same block.
_SHARES = 1 << 16
# One thread adds this many words in the time that another thread takes to wake up.
_WORDS_WORTH_A_THREAD = 1 << 20


def _add_shares(
    block: _Block,
    parts: Sequence[UnitValues],
    inverse: float,
    sums: Sums,
    start: int,
    end: int,
) -> tuple[np.ndarray, np.ndarray]:
    """For each task of a block, sum the rounded values of the weights that the task's mask keeps.

    Only some units are summed: the units are divided into _SHARES shares, and the call sums the
    shares from `start` to `end` - 1.

    Args:
        block: the transposed masks of the tasks.
        parts: the values.
        inverse: factor that multiplies the values before they are rounded.
        sums: working memory, empty before and after the call.
        start: index of the first share.
        end: index after the last share.

    Returns:
        Two arrays. The first array has three numbers, which `weigh` of kernels/counting.py returns:
        the bound, the sum of squared rounding errors and the number of rows. The second array,
        (64 W,), has the sum of each task.
    """
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
