"""Measure matrix products in float32 and in bfloat16, for `train.dtype=auto`.

The flags of a CPU do not tell which type is faster. With the same flag, avx512_bf16, bfloat16 is
2.9 times as fast as float32 on a Zen 5, and 0.6 times as fast on a Sapphire Rapids (a virtual
machine whose host hides AMX). So the products are measured once, when a run begins, in the shapes
that the run needs and on a machine that trains. The run stores the choice, and keeps it on all
machines.

If the machines of a cluster differ, the machine that measures decides for all. Masks must not
depend on the machine that trains them, so a run has one type.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any, Protocol, TypeVar

import torch

from harness.config.names import AUTO
from harness.plan.device import device_name, pick_device
from harness.plan.resolve import resolve
from harness.run.spec import RunSpec
from supsup_core.networks.mlp import MLP
from supsup_core.training.products import Product, step_products

logger = logging.getLogger("harness")

T = TypeVar("T")

SECONDS = 0.4
# float32 rounds less. So bfloat16 is chosen only if it is faster by this factor or more.
_LEAST_GAIN = 1.1
# Limits of the measured products on a CPU; see _bounded.
_MOST_UNITS, _MOST_IMAGES, _MOST_OPERATIONS = 1024, 256, 300_000_000


class Call(Protocol):
    """A function that calls another function on a machine that trains; see Executor.call."""

    def __call__(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call the function."""
        ...


def here(function: Callable[..., T], *arguments: Any) -> T:
    """Call the function in this process."""
    return function(*arguments)


@dataclass(frozen=True)
class ProductRates:
    """The speed of the matrix products of a training step, with one CPU thread or on one GPU.

    Attributes:
        float32: billions of multiplications and additions per second (GFLOP/s) in float32.
        bfloat16: the same rate in bfloat16.
        device: "cpu", or the GPU's name.
    """

    float32: float
    bfloat16: float
    device: str

    @property
    def bfloat16_is_faster(self) -> bool:
        """Whether `train.dtype=auto` means bfloat16."""
        return self.bfloat16 >= _LEAST_GAIN * self.float32


def measured_rates(spec: RunSpec, call: Call) -> ProductRates | None:
    """If train.dtype is auto, measure a run's matrix products in both types, and log the rates.

    Args:
        spec: the run's specification, with `auto` not resolved yet.
        call: a function that calls another function on a machine that trains.

    Returns:
        The rates in float32 and bfloat16; None if train.dtype is not auto, or if the trainer
        supports only float32.
    """
    if spec.config.train.dtype != AUTO or not spec.capabilities.bfloat16_serves:
        return None
    train = resolve(spec.config, spec.capabilities, bfloat16_is_faster=False).train
    assert isinstance(spec.network, MLP)  # as bfloat16_serves says
    rates = call(measure_rates, spec.network.widths, int(train.block), train.batch_size)
    logger.info(
        "train.dtype=auto is %s: at this run's shapes, products run at %.0f GFLOP/s in bfloat16 "
        "and %.0f GFLOP/s in float32 (one actor, %s)",
        "bfloat16" if rates.bfloat16_is_faster else "float32",
        *(rates.bfloat16, rates.float32, rates.device),
    )
    return rates


def measure_rates(
    widths: Sequence[int], block: int, num_images: int, seconds: float = SECONDS
) -> ProductRates:
    """Measure the speed of the matrix products of a training step in float32 and in bfloat16.

    As in an actor, the products are computed with one CPU thread or on one GPU. Each product is
    computed in both types, as often as the time allows. Only the fastest computation counts,
    because other processes can only slow a computation down. If the time is too short for all
    products, the rates are those of the products that were computed in both types.

    Args:
        widths: number of units in each layer, from the inputs to the outputs.
        block: number of tasks in a block.
        num_images: number of images in a batch.
        seconds: time after which no other product is begun.
    """
    device, num_threads = pick_device(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(widths, block, num_images, seconds, device)
    finally:
        torch.set_num_threads(num_threads)


def _measure(
    widths: Sequence[int], block: int, num_images: int, seconds: float, device: torch.device
) -> ProductRates:
    if device.type == "cpu":
        widths, block, num_images = _bounded(widths, block, num_images)
    both = [
        step_products(widths, block, num_images, dtype, device)
        for dtype in (torch.float32, torch.bfloat16)
    ]
    pairs = list(zip(*both, strict=True))
    began = time.perf_counter()
    best = [[inf, inf] for _ in pairs]
    while inf in best[0] or time.perf_counter() - began < seconds:
        for pair, fastest in zip(pairs, best, strict=True):
            for i, product in enumerate(pair):
                fastest[i] = min(fastest[i], _seconds(product, device))
            if time.perf_counter() - began > seconds:
                break
    measured = [i for i, fastest in enumerate(best) if inf not in fastest]
    operations = sum(pairs[i][0].operations for i in measured)
    float32, bfloat16 = (operations / sum(best[i][j] for i in measured) / 1e9 for j in (0, 1))
    return ProductRates(float32, bfloat16, device_name(device))


def _bounded(widths: Sequence[int], block: int, num_images: int) -> tuple[list[int], int, int]:
    """Reduce the shapes of large products until a product takes a few hundredths of a second.

    Without instructions for bfloat16, a CPU is so slow that a whole block would take seconds.
    Larger products have almost the same rate.

    Returns:
        The widths, the number of tasks and the number of images.
    """
    widths = [min(width, _MOST_UNITS) for width in widths]
    num_images = min(num_images, _MOST_IMAGES)
    largest = max(2 * o * i * num_images for i, o in pairwise(widths))
    return widths, max(1, min(block, _MOST_OPERATIONS // largest)), num_images


def _seconds(product: Product, device: torch.device) -> float:
    began = time.perf_counter()
    product.compute()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
