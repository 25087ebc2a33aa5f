"""The kernels of a training step of many tasks on one GPU.

A step of the layers reads and writes each score once. The gradient of a weight is computed,
used and dropped inside one kernel (`learn_kernel`), so it is never written to the GPU's memory.
Every kernel computes the values of one task in the same way for any number of tasks. So the bits of
a task's mask do not depend on the other tasks that train on the GPU.

In the kernels, OUTPUTS, INPUTS and IMAGES are the sizes of a layer and of a batch. VALUES is the
number of values of a task's image, and PIXELS is the number of pixels of an image of the data set.
They are compile-time constants, so that the compiler knows which addresses are aligned.
"""

from typing import no_type_check

import triton
import triton.language as tl

# These numbers depend on the number of tasks that train together. Triton would compile a kernel
# again if one of them were 1 or a multiple of 16. The last unit of a run, which has fewer tasks,
# would then wait for the compiler.
_VARY = ["tasks_per_group", "num_groups"]


@triton.jit
@no_type_check
def pick_kernel(
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
    """Write the normalised images of the current step: one image of one group per program."""
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


@triton.jit(do_not_specialize=_VARY)
@no_type_check
def forward_kernel(
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
    """Multiply the masked signs of a task with the inputs of a layer: one tile per program."""
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


@triton.jit(do_not_specialize=_VARY)
@no_type_check
def logit_gradient_kernel(
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
    """Replace the logits of some images of a task by the gradient of the mean cross-entropy."""
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
def back_kernel(
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
    """Compute the gradient with respect to the inputs of a layer: one tile per program."""
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


@triton.jit(do_not_specialize=_VARY)
@no_type_check
def learn_kernel(
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
    SLOPE: tl.constexpr,
    MASKS: tl.constexpr,
    PRECISION: tl.constexpr,
    BO: tl.constexpr,
    BI: tl.constexpr,
    BN: tl.constexpr,
):  # pragma: no cover
    """Compute the gradients of some weights of a task, and take the optimiser's step with them."""
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
    if SLOPE != 1:
        slope *= SLOPE
    score, one, two = MOVE(score, one, two, sign, slope, constants + tl.load(step) * NUM_CONSTANTS)
    tl.store(scores + at, score, both)
    tl.store(first_state + at, one.to(first_state.dtype.element_ty), both)
    if HAS_SECOND:
        tl.store(second_state + at, two, both)
    if MASKS:
        tl.store(masked + at, tl.where(score >= 0, sign, 0.0).to(masked.dtype.element_ty), both)
