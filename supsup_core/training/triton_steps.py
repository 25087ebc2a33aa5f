"""The kernels of a training step of many tasks on one GPU.

A step of the layers reads and writes each score once. The gradient of a weight is computed,
used and dropped inside one kernel (`_learn`), so it is never written to the GPU's memory. Every
kernel computes the values of one task in the same way for any number of tasks. So the bits of a
task's mask do not depend on the other tasks that train on the GPU.

In the kernels, OUTPUTS, INPUTS and IMAGES are the sizes of a layer and of a batch. VALUES is the
number of values of a task's image, and PIXELS is the number of pixels of an image of the data set.
They are compile-time constants, so that the compiler knows which addresses are aligned.
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from supsup_core.methods.rules import AboveZero, FastRule, TopShares
from supsup_core.training.resident_steps import Feed, PlainSteps, ResidentLayer
from supsup_core.training.triton_moves import MOVES

# The sizes of the tiles that one program computes: outputs, inputs, and images. For float32, the
# dimension that is summed is halved, so that the tiles fit into the shared memory of small GPUs.
_FORWARD_TILE = (64, 64, 128)
_FORWARD_TILE_FLOAT32 = (64, 32, 128)
_LEARN_TILE = (64, 64, 64)
_LEARN_TILE_FLOAT32 = (64, 64, 32)
_OUTPUTS_AT_ONCE, _IMAGES_AT_ONCE = 128, 64  # tile of the kernel _logit_gradient
_PIXELS_AT_ONCE = 1024


@triton.jit
@no_type_check
def _pick(
    pixels,
    table,
    step,
    sources,
    out,
    scale,
    shift,
    PIXELS: tl.constexpr,
    VALUES: tl.constexpr,
    IMAGES: tl.constexpr,
    CHOOSES: tl.constexpr,
    BLOCK: tl.constexpr,
):  # pragma: no cover
    at = tl.program_id(0).to(
        tl.int64
    )  # number of the group, times IMAGES, plus number of the image
    p = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    groups_and_images = tl.num_programs(0)
    image = tl.load(table + tl.load(step) * groups_and_images + at).to(tl.int64)
    inside = p < VALUES
    if CHOOSES:
        source = tl.load(sources + (at // IMAGES) * VALUES + p, inside, PIXELS)
    else:
        source = p
    shown = tl.load(pixels + image * PIXELS + source, inside & (source < PIXELS), 0)
    value = shown.to(tl.float32) * scale - shift
    tl.store(out + at * VALUES + p, value.to(out.dtype.element_ty), inside)


@triton.jit
@no_type_check
def _forward(
    masked,
    x,
    out,
    tasks_per_group,
    x_group,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    IMAGES: tl.constexpr,
    x_input: tl.constexpr,
    x_image: tl.constexpr,
    RELU: tl.constexpr,
    PRECISION: tl.constexpr,
    BO: tl.constexpr,
    BI: tl.constexpr,
    BN: tl.constexpr,
):  # pragma: no cover
    program = tl.program_id(0)
    tiles_n, tiles_o = tl.cdiv(IMAGES, BN), tl.cdiv(OUTPUTS, BO)
    n = (program % tiles_n) * BN + tl.arange(0, BN)
    o = (program // tiles_n % tiles_o) * BO + tl.arange(0, BO)
    task = (program // (tiles_n * tiles_o)).to(tl.int64)
    own = masked + task * OUTPUTS * INPUTS
    images = x + (task // tasks_per_group) * x_group
    total = tl.zeros((BO, BN), tl.float32)
    for first in range(0, INPUTS, BI):
        i = first + tl.arange(0, BI)
        m = tl.load(
            own + o[:, None] * INPUTS + i[None, :],
            (o < OUTPUTS)[:, None] & (i < INPUTS)[None, :],
            0,
        )
        v = tl.load(
            images + i[:, None] * x_input + n[None, :] * x_image,
            (i < INPUTS)[:, None] & (n < IMAGES)[None, :],
            0,
        )
        total = tl.dot(m.to(v.dtype), v, total, input_precision=PRECISION)
    if RELU:
        total = tl.maximum(total, 0.0)
    tl.store(
        out + (task * OUTPUTS + o[:, None]) * IMAGES + n[None, :],
        total.to(out.dtype.element_ty),
        (o < OUTPUTS)[:, None] & (n < IMAGES)[None, :],
    )


@triton.jit
@no_type_check
def _logit_gradient(
    logits,
    labels,
    table,
    step,
    tasks_per_group,
    num_groups,
    scale,
    OUTPUTS: tl.constexpr,
    IMAGES: tl.constexpr,
    BS: tl.constexpr,
    BN: tl.constexpr,
):  # pragma: no cover
    tiles_n = tl.cdiv(IMAGES, BN)
    n = (tl.program_id(0) % tiles_n) * BN + tl.arange(0, BN)
    task = (tl.program_id(0) // tiles_n).to(tl.int64)
    inside = n < IMAGES
    row = tl.load(step) * num_groups + task // tasks_per_group
    label = tl.load(labels + tl.load(table + row * IMAGES + n, inside, 0), inside, 0)
    own = logits + task * OUTPUTS * IMAGES
    largest = tl.full((BN,), float("-inf"), tl.float32)
    total = tl.zeros((BN,), tl.float32)
    for first in range(0, OUTPUTS, BS):
        s = first + tl.arange(0, BS)
        at = s[:, None] * IMAGES + n[None, :]
        both = (s < OUTPUTS)[:, None] & inside[None, :]
        z = tl.load(own + at, both, float("-inf")).to(tl.float32) * scale
        # A column of -inf stands for an index after the last image. Its values are never stored.
        more = tl.maximum(largest, tl.max(z, axis=0))
        more = tl.where(inside, more, 0.0)
        total = total * tl.exp(largest - more) + tl.sum(tl.exp(z - more[None, :]), axis=0)
        largest = more
    share = scale / IMAGES
    for first in range(0, OUTPUTS, BS):
        s = first + tl.arange(0, BS)
        at = s[:, None] * IMAGES + n[None, :]
        both = (s < OUTPUTS)[:, None] & inside[None, :]
        z = tl.load(own + at, both, 0.0).to(tl.float32) * scale
        p = tl.exp(z - largest[None, :]) / tl.where(inside, total, 1.0)[None, :]
        p = tl.where(s[:, None] == label[None, :], p - 1.0, p)
        tl.store(own + at, (p * share).to(logits.dtype.element_ty), both)


@triton.jit
@no_type_check
def _back(
    masked,
    delta,
    active,
    out,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    IMAGES: tl.constexpr,
    PRECISION: tl.constexpr,
    BO: tl.constexpr,
    BI: tl.constexpr,
    BN: tl.constexpr,
):  # pragma: no cover
    program = tl.program_id(0)
    tiles_n, tiles_i = tl.cdiv(IMAGES, BN), tl.cdiv(INPUTS, BI)
    n = (program % tiles_n) * BN + tl.arange(0, BN)
    i = (program // tiles_n % tiles_i) * BI + tl.arange(0, BI)
    task = (program // (tiles_n * tiles_i)).to(tl.int64)
    total = tl.zeros((BI, BN), tl.float32)
    for first in range(0, OUTPUTS, BO):
        o = first + tl.arange(0, BO)
        m = tl.load(
            masked + (task * OUTPUTS + o[None, :]) * INPUTS + i[:, None],
            (o < OUTPUTS)[None, :] & (i < INPUTS)[:, None],
            0,
        )
        d = tl.load(
            delta + (task * OUTPUTS + o[:, None]) * IMAGES + n[None, :],
            (o < OUTPUTS)[:, None] & (n < IMAGES)[None, :],
            0.0,
        )
        total = tl.dot(m.to(d.dtype), d, total, input_precision=PRECISION)
    at = (task * INPUTS + i[:, None]) * IMAGES + n[None, :]
    both = (i < INPUTS)[:, None] & (n < IMAGES)[None, :]
    passes = tl.load(active + at, both, 0.0) > 0
    tl.store(out + at, tl.where(passes, total, 0.0).to(out.dtype.element_ty), both)


@triton.jit
@no_type_check
def _learn(
    delta,
    x,
    scores,
    first_state,
    second_state,
    masked,
    constants,
    step,
    tasks_per_group,
    x_group,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    IMAGES: tl.constexpr,
    x_input: tl.constexpr,
    x_image: tl.constexpr,
    MOVE: tl.constexpr,
    NUM_CONSTANTS: tl.constexpr,
    HAS_SECOND: tl.constexpr,
    BY_MAGNITUDE: tl.constexpr,
    MASKS: tl.constexpr,
    PRECISION: tl.constexpr,
    BO: tl.constexpr,
    BI: tl.constexpr,
    BN: tl.constexpr,
):  # pragma: no cover
    program = tl.program_id(0)
    tiles_i, tiles_o = tl.cdiv(INPUTS, BI), tl.cdiv(OUTPUTS, BO)
    i = (program % tiles_i) * BI + tl.arange(0, BI)
    o = (program // tiles_i % tiles_o) * BO + tl.arange(0, BO)
    task = (program // (tiles_i * tiles_o)).to(tl.int64)
    images = x + (task // tasks_per_group) * x_group
    # These loads begin before the product, because they take the longest.
    at = (task * OUTPUTS + o[:, None]) * INPUTS + i[None, :]
    both = (o < OUTPUTS)[:, None] & (i < INPUTS)[None, :]
    score = tl.load(scores + at, both, 0.0)
    one = tl.load(first_state + at, both, 0.0).to(tl.float32)
    two = tl.load(second_state + at, both, 0.0) if HAS_SECOND else one
    slope = tl.zeros((BO, BI), tl.float32)
    for first in range(0, IMAGES, BN):
        n = first + tl.arange(0, BN)
        d = tl.load(
            delta + (task * OUTPUTS + o[:, None]) * IMAGES + n[None, :],
            (o < OUTPUTS)[:, None] & (n < IMAGES)[None, :],
            0.0,
        )
        v = tl.load(
            images + n[:, None] * x_image + i[None, :] * x_input,
            (n < IMAGES)[:, None] & (i < INPUTS)[None, :],
            0.0,
        )
        slope = tl.dot(d, v, slope, input_precision=PRECISION)
    # The sign bit of the first state is the sign of the weight: see training/optimizers.
    sign = tl.where(one.to(tl.int32, bitcast=True) < 0, -1.0, 1.0)
    slope *= sign
    if BY_MAGNITUDE:
        slope = tl.where(score.to(tl.int32, bitcast=True) < 0, -slope, slope)
    score, one, two = MOVE(score, one, two, sign, slope, constants + tl.load(step) * NUM_CONSTANTS)
    tl.store(scores + at, score, both)
    tl.store(first_state + at, one.to(first_state.dtype.element_ty), both)
    if HAS_SECOND:
        tl.store(second_state + at, two, both)
    if MASKS:
        tl.store(masked + at, tl.where(score >= 0, sign, 0.0).to(masked.dtype.element_ty), both)


@triton.jit
@no_type_check
def _draw(
    keys,
    sources,
    out,
    bound,
    VALUES: tl.constexpr,
    INPUTS: tl.constexpr,
    REORDERS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # pragma: no cover
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


@dataclass(frozen=True)
class _Rule:
    """The work of the kernel `_learn` for a rule of finders.

    Attributes:
        by_magnitude: whether the gradient of a score is multiplied by the score's sign.
        masks: whether the kernel writes the masked signs: the sign of the weight if the score is
            not negative, otherwise 0.
    """

    by_magnitude: bool
    masks: bool


_RULES: dict[type[FastRule], _Rule] = {AboveZero: _Rule(False, True), TopShares: _Rule(True, False)}


class TritonSteps(PlainSteps):
    """The parts of a training step as Triton kernels; see PlainSteps for the methods.

    The tensors are float32 or bfloat16. Masked signs are stored in one byte. Finders that have no
    kernel take the step of the optimiser with torch.
    """

    def masked_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return int8, the type of the masked signs."""
        return torch.int8

    def pick(self, feed: Feed, out: Tensor) -> None:
        """Write the normalised images of the current step; see PlainSteps.pick."""
        num_groups, num_images, num_values = out.shape
        scale, shift = 1 / (255 * feed.std), feed.mean / feed.std
        grid = (num_groups * num_images, triton.cdiv(num_values, _PIXELS_AT_ONCE))
        sources = feed.images if feed.sources is None else feed.sources
        _pick[grid](
            feed.images,
            feed.table,
            feed.step,
            sources,
            out,
            scale,
            shift,
            PIXELS=feed.images.shape[1],
            VALUES=num_values,
            IMAGES=num_images,
            CHOOSES=feed.sources is not None,
            BLOCK=_PIXELS_AT_ONCE,
        )

    def forward(self, masked: Tensor, x: Tensor, out: Tensor, *, relu: bool) -> None:
        """Write the outputs of a layer; see PlainSteps.forward."""
        num_tasks, num_outputs, num_inputs = masked.shape
        num_images = x.shape[2]
        o, i, n = _FORWARD_TILE_FLOAT32 if x.dtype == torch.float32 else _FORWARD_TILE
        grid = (num_tasks * triton.cdiv(num_outputs, o) * triton.cdiv(num_images, n),)
        _forward[grid](
            masked,
            x,
            out,
            num_tasks // len(x),
            x.stride(0),
            OUTPUTS=num_outputs,
            INPUTS=num_inputs,
            IMAGES=num_images,
            x_input=x.stride(1),
            x_image=x.stride(2),
            RELU=relu,
            PRECISION=_precision(x),
            BO=o,
            BI=i,
            BN=n,
        )

    def logit_gradient(self, logits: Tensor, feed: Feed, scale: float) -> None:
        """Replace the logits by the gradient of the loss; see PlainSteps.logit_gradient."""
        num_tasks, num_outputs, num_images = logits.shape
        num_groups = feed.table.shape[1]
        grid = (num_tasks * triton.cdiv(num_images, _IMAGES_AT_ONCE),)
        _logit_gradient[grid](
            logits,
            feed.labels,
            feed.table,
            feed.step,
            num_tasks // num_groups,
            num_groups,
            scale,
            OUTPUTS=num_outputs,
            IMAGES=num_images,
            BS=_OUTPUTS_AT_ONCE,
            BN=_IMAGES_AT_ONCE,
        )

    def back(self, masked: Tensor, delta: Tensor, active: Tensor, out: Tensor) -> None:
        """Write the gradient with respect to a layer's inputs; see PlainSteps.back."""
        num_tasks, num_outputs, num_inputs = masked.shape
        num_images = delta.shape[2]
        i, o, n = _FORWARD_TILE_FLOAT32 if delta.dtype == torch.float32 else _FORWARD_TILE
        grid = (num_tasks * triton.cdiv(num_inputs, i) * triton.cdiv(num_images, n),)
        _back[grid](
            masked,
            delta,
            active,
            out,
            OUTPUTS=num_outputs,
            INPUTS=num_inputs,
            IMAGES=num_images,
            PRECISION=_precision(delta),
            BO=o,
            BI=i,
            BN=n,
        )

    def learn(self, layer: ResidentLayer, delta: Tensor, x: Tensor, feed: Feed) -> None:
        """Take a step of the optimiser; see PlainSteps.learn."""
        fast_rule = layer.method.fast_rule(layer.tensor)
        rule = None if fast_rule is None else _RULES.get(type(fast_rule))
        if rule is None:
            super().learn(layer, delta, x, feed)
            return
        num_tasks, num_outputs, num_inputs = layer.masked.shape
        first, *others = layer.state
        o, i, n = _LEARN_TILE_FLOAT32 if x.dtype == torch.float32 else _LEARN_TILE
        grid = (num_tasks * triton.cdiv(num_outputs, o) * triton.cdiv(num_inputs, i),)
        _learn[grid](
            delta,
            x,
            layer.scores,
            first,
            others[0] if others else first,
            layer.masked,
            feed.constants,
            feed.step,
            num_tasks // len(x),
            x.stride(0),
            OUTPUTS=num_outputs,
            INPUTS=num_inputs,
            IMAGES=x.shape[2],
            x_input=x.stride(1),
            x_image=x.stride(2),
            MOVE=MOVES[layer.optimizer.name],
            NUM_CONSTANTS=feed.constants.shape[1],
            HAS_SECOND=bool(others),
            BY_MAGNITUDE=rule.by_magnitude,
            MASKS=rule.masks,
            PRECISION=_precision(x),
            BO=o,
            BI=i,
            BN=n,
        )
        if not rule.masks:
            layer.choose()

    def draw(self, keys: np.ndarray, bound: float, sources: Tensor | None, out: Tensor) -> None:
        """Draw the first scores on the device; see PlainSteps.draw."""
        num_tasks, num_outputs, num_inputs = out.shape
        block = 1024
        words = torch.from_numpy(keys.view(np.int64)).to(out.device)
        grid = (triton.cdiv(num_outputs * num_inputs, block), num_tasks)
        _draw[grid](
            words,
            words if sources is None else sources,
            out,
            bound,
            VALUES=num_outputs * num_inputs,
            INPUTS=num_inputs,
            REORDERS=sources is not None,
            BLOCK=block,
        )


def _precision(values: Tensor) -> str:
    # For bfloat16, the products of a dot are exact. For float32, "ieee" turns off TF32.
    return "ieee" if values.dtype == torch.float32 else "tf32"
