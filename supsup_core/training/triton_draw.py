"""The kernel that draws the first scores of many tasks on one GPU."""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def draw_kernel(
    keys,
    sources,
    out,
    bound,
    VALUES: tl.constexpr,
    INPUTS: tl.constexpr,
    REORDERS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # pragma: no cover
    """Draw some first scores of a task, uniform in (-bound, bound)."""
    task = tl.program_id(1).to(tl.int64)
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    key0 = tl.load(keys + 2 * task).to(tl.uint64, bitcast=True)
    key1 = tl.load(keys + 2 * task + 1).to(tl.uint64, bitcast=True)
    # Philox 4x64 with 10 rounds (Salmon et al. 2011), as NumPy's generator uses it: block number b
    # has the counter b + 1, and each of its four words gives two numbers, the low half first.
    a = (e // 8 + 1).to(tl.uint64)
    b = tl.zeros_like(a)
    c = tl.zeros_like(a)
    d = tl.zeros_like(a)
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(a, _full(a, 0xD2E7470EE14C6C93)), a * _full(a, 0xD2E7470EE14C6C93)
        high1, low1 = tl.umulhi(c, _full(a, 0xCA5A826395121157)), c * _full(a, 0xCA5A826395121157)
        a, b, c, d = high1 ^ b ^ key0, low1, high0 ^ d ^ key1, low0
        key0 += 0x9E3779B97F4A7C15
        key1 += 0xBB67AE8584CAA73B
    which = e // 2 % 4
    word = tl.where(which < 2, tl.where(which == 0, a, b), tl.where(which == 2, c, d))
    half = tl.where(e % 2 == 0, word & 0xFFFFFFFF, word >> 32)
    draw = (half >> 8).to(tl.float32) * (1.0 / 16777216.0)
    at = e
    inside = e < VALUES
    if REORDERS:
        column = tl.load(sources + task * INPUTS + e % INPUTS, inside, 0)
        at = e - e % INPUTS + column
    tl.store(out + task * VALUES + at, (2.0 * draw - 1.0) * bound, inside)


@triton.jit
@no_type_check
def _full(like, value: tl.constexpr):  # pragma: no cover
    return tl.full(like.shape, value, tl.uint64)
