"""Replace `auto` by a value, once per run; the run stores the value.

The values follow from the work and not from the machine. There is one exception: for the type of
the matrix products (float32 or bfloat16), harness/run/products.py measures the machine. A resumed
run keeps the values of its first start.
"""

from dataclasses import replace
from typing import Any

from harness.config.names import AUTO, DEFAULT_ALGORITHMS
from harness.config.schema import (
    AllocationConfig,
    Config,
    EvaluateConfig,
    ReservoirConfig,
    is_streamed,
)
from harness.plan.capabilities import Capabilities
from supsup_core.names import GIVEN

# Automatic checkpoints are these numbers, then ten times these numbers, and so on.
_CHECKPOINT_STEPS = (10, 25, 50)

# The training state of a block should fit into the last cache of the CPU. A gain needs 4 bytes for
# the score, 4 for the running mean, 2 for the masked sign and 2 for the gradient. Measured with two
# actors on LeNet 300-100: blocks of 8 tasks are fastest; with 16 tasks the actors slow each other
# down.
STATE_BYTES_PER_GAIN = 12

_BLOCK_STATE_BYTES = 32 * 1024 * 1024

_MAX_BLOCK = 16

# Bytes per value that a forward pass keeps for the backward pass: 4 for an activation and 4 for its
# gradient. The activations of a block limit convolutional networks. LeNet stays far below the
# limit.
_ACTIVATION_BYTES = 8

_BLOCK_ACTIVATION_BYTES = 10**9

# A mask of up to this number of bits is stored in one reservoir. A longer mask is cut into blocks.
_MAX_WHOLE_BITS = 8192

_BLOCK_BITS = 1024

_FEWEST_SPARE_MASKS = 4


def automatic_block(
    num_tasks: int, num_gains: int, *, num_activations: int, batch_size: int
) -> int:
    """Choose the number of tasks per block, so that a block suits the caches of most machines.

    A block has at most a quarter of the tasks, rounded up. A mask depends on the size of its block,
    because the tasks of a block train together. So that the same run gives the same masks on every
    machine, the size does not depend on the machine.

    Args:
        num_tasks: number of tasks of the run.
        num_gains: number of gains of all masked tensors of the network.
        num_activations: number of values that a forward pass of one input keeps for the backward
            pass.
        batch_size: inputs per training step.

    Returns:
        The number of tasks per block, in [1, 16].
    """
    in_caches = _BLOCK_STATE_BYTES // (STATE_BYTES_PER_GAIN * num_gains)
    task_bytes = _ACTIVATION_BYTES * max(1, num_activations) * batch_size
    in_memory = _BLOCK_ACTIVATION_BYTES // task_bytes
    quarter = -(-num_tasks // 4)
    return max(1, min(in_caches, in_memory, quarter, _MAX_BLOCK))


def automatic_checkpoints(num_tasks: int) -> list[int]:
    """List 10, 25, 50, 100, 250, ... below the number of tasks, and the number of tasks itself."""
    found, scale = [], 1
    while _CHECKPOINT_STEPS[0] * scale < num_tasks:
        found += [step * scale for step in _CHECKPOINT_STEPS if step * scale < num_tasks]
        scale *= 10
    return [*found, num_tasks]


def resolve_checkpoints(checkpoints: Any, num_tasks: int) -> list[int]:
    """Sort the checkpoints and remove duplicates; for `auto`, make the automatic checkpoints."""
    if checkpoints == AUTO:
        return automatic_checkpoints(num_tasks)
    return sorted(set(checkpoints))


def resolve(
    config: Config,
    capabilities: Capabilities,
    *,
    bfloat16_is_faster: bool,
    device: str = AUTO,
) -> Config:
    """Replace `auto` by a value, for all keys that change a result.

    Args:
        config: the configuration as typed.
        capabilities: capabilities of the run's network, finder and engine.
        bfloat16_is_faster: whether the machine that trains computes matrix products faster in
            bfloat16 than in float32.
        device: kind of device that trains. AUTO: it is not known yet, and stays `auto`.
    """
    train = config.train
    block: int | str = train.block
    if is_streamed(config):
        block = 1
    elif block == AUTO and capabilities.order == "sequence":
        block = 1  # so a task can use all tasks before it
    elif block == AUTO:
        block = automatic_block(
            config.tasks,
            capabilities.num_gains,
            num_activations=capabilities.num_activations,
            batch_size=train.batch_size,
        )
    uses_bfloat16 = bfloat16_is_faster and capabilities.bfloat16_serves
    automatic_dtype = "bfloat16" if uses_bfloat16 else "float32"
    dtype = automatic_dtype if train.dtype == AUTO else train.dtype
    evaluate = resolve_evaluation(config.evaluate, capabilities)
    checkpoints = resolve_checkpoints(evaluate.checkpoints, config.tasks)
    return replace(
        config,
        train=replace(
            train,
            block=block,
            dtype=dtype,
            device=device if train.device == AUTO else train.device,
        ),
        evaluate=replace(evaluate, checkpoints=checkpoints),
        allocation=resolve_budget(config.allocation, config.tasks),
        reservoir=resolve_block(config.reservoir, capabilities.num_bits),
    )


def resolve_budget(allocation: AllocationConfig, num_tasks: int) -> AllocationConfig:
    """Replace `auto` in allocation.budget by a tenth more masks than tasks, and at least 4 more."""
    if allocation.budget != AUTO:
        return allocation
    return replace(allocation, budget=num_tasks + max(_FEWEST_SPARE_MASKS, num_tasks // 10))


def most_masks(config: Config) -> int:
    """Return the largest number of masks of a run, from its resolved configuration."""
    return int(config.allocation.budget) if is_streamed(config) else config.tasks


def resolve_evaluation(evaluate: EvaluateConfig, capabilities: Capabilities) -> EvaluateConfig:
    """Replace `auto` in the algorithms and in num_images; the checkpoints stay unchanged.

    Args:
        evaluate: the evaluation part of the configuration, as typed.
        capabilities: capabilities of the run's network and engine.
    """
    algorithms, num_images = evaluate.algorithms, evaluate.num_images
    if algorithms == AUTO:
        known = [name for name in DEFAULT_ALGORITHMS if name in capabilities.supports]
        algorithms = known or [GIVEN]
    if num_images == AUTO:
        num_images = evaluate.batch_size if capabilities.normalises else 1
    return replace(evaluate, algorithms=algorithms, num_images=num_images)


def resolve_block(reservoir: ReservoirConfig, mask_bits: int) -> ReservoirConfig:
    """Replace `auto` in reservoir.block, the number of bits per block.

    A number above mask_bits is lowered to mask_bits.

    Args:
        reservoir: the reservoir part of the configuration, as typed.
        mask_bits: number of bits of a mask.
    """
    automatic = mask_bits if mask_bits <= _MAX_WHOLE_BITS else _BLOCK_BITS
    wanted = automatic if reservoir.block == AUTO else int(reservoir.block)
    return replace(reservoir, block=max(1, min(wanted, mask_bits)))
