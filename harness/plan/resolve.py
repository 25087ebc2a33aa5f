"""What `auto` means for a run: decided once, from the work and not from the machine."""

from dataclasses import replace
from typing import Any

from harness.config.schema import (
    AUTO,
    DEFAULT_ALGORITHMS,
    Config,
    EvaluateConfig,
    ReservoirConfig,
)
from harness.plan.capabilities import Capabilities

# The steps of the automatic checkpoints, and how often they grow tenfold.
_CHECKPOINT_STEPS = (10, 25, 50)

# A block's training state should stay in the last cache: 4 bytes of score, 4 of running
# mean, 2 each of masked sign and gradient for every gain. Measured with two actors on
# LeNet 300-100: 8 tasks are best, at 16 each slows the other down.
_STATE_BYTES_PER_GAIN = 12

_BLOCK_STATE_BYTES = 32 * 1024 * 1024

_MAX_BLOCK = 16

# What a forward pass keeps for the backward pass: the activations of a block of LeNet are far
# below this, those of a convolutional network are not. Each is counted with its gradient.
_ACTIVATION_BYTES = 8

_BLOCK_ACTIVATION_BYTES = 10**9

# A mask of no more bits goes into one reservoir, a longer one in blocks.
_MAX_WHOLE_BITS = 8192

_BLOCK_BITS = 1024


def automatic_block(
    num_tasks: int, num_gains: int, *, num_activations: int, batch_size: int
) -> int:
    """Tasks of a block: as many as fit the caches and the memory, and four blocks at least.

    It follows from the work alone, not from the machine: which tasks share a
    block is part of what a mask is.

    Args:
        num_tasks: of the run.
        num_gains: gains of all masked tensors of the network.
        num_activations: numbers that a forward pass of one input keeps for the backward pass.
        batch_size: inputs of a training step.
    """
    in_caches = _BLOCK_STATE_BYTES // (_STATE_BYTES_PER_GAIN * num_gains)
    task_bytes = _ACTIVATION_BYTES * max(1, num_activations) * batch_size
    in_memory = _BLOCK_ACTIVATION_BYTES // task_bytes
    quarter = -(-num_tasks // 4)
    return max(1, min(in_caches, in_memory, quarter, _MAX_BLOCK))


def automatic_checkpoints(num_tasks: int) -> list[int]:
    """10, 25, 50, 100, 250, ... below the number of tasks, and that number."""
    found, scale = [], 1
    while _CHECKPOINT_STEPS[0] * scale < num_tasks:
        found += [step * scale for step in _CHECKPOINT_STEPS if step * scale < num_tasks]
        scale *= 10
    return [*found, num_tasks]


def resolve_checkpoints(checkpoints: Any, num_tasks: int) -> list[int]:
    """Checkpoints in order, each once; `auto` is those of num_tasks tasks."""
    if checkpoints == AUTO:
        return automatic_checkpoints(num_tasks)
    return sorted(set(checkpoints))


def resolve(config: Config, capabilities: Capabilities, *, has_bfloat16: bool) -> Config:
    """Replace every `auto` that changes a result by what it means here.

    Args:
        config: as typed.
        capabilities: what the run's network, finder and engine can do.
        has_bfloat16: whether the training device multiplies bfloat16 matrices fast.
    """
    train = config.train
    block: int | str = train.block
    if block == AUTO:
        block = automatic_block(
            config.tasks,
            capabilities.num_gains,
            num_activations=capabilities.num_activations,
            batch_size=train.batch_size,
        )
    automatic_dtype = "bfloat16" if has_bfloat16 and capabilities.bfloat16_serves else "float32"
    dtype = automatic_dtype if train.dtype == AUTO else train.dtype
    evaluate = resolve_evaluation(config.evaluate, capabilities)
    checkpoints = resolve_checkpoints(evaluate.checkpoints, config.tasks)
    return replace(
        config,
        train=replace(train, block=block, dtype=dtype),
        evaluate=replace(evaluate, checkpoints=checkpoints),
        reservoir=resolve_block(config.reservoir, capabilities.num_bits),
    )


def resolve_evaluation(evaluate: EvaluateConfig, capabilities: Capabilities) -> EvaluateConfig:
    """Say which algorithms infer, and from how many images; the checkpoints stay as they are.

    Args:
        evaluate: as typed.
        capabilities: what the run's network and engine can do.
    """
    algorithms, num_images = evaluate.algorithms, evaluate.num_images
    if algorithms == AUTO:
        algorithms = [name for name in DEFAULT_ALGORITHMS if name in capabilities.supports]
    if num_images == AUTO:
        num_images = evaluate.batch_size if capabilities.normalises else 1
    return replace(evaluate, algorithms=algorithms, num_images=num_images)


def resolve_block(reservoir: ReservoirConfig, mask_bits: int) -> ReservoirConfig:
    """Say how many bits of a mask a reservoir holds together; never more than a mask has."""
    automatic = mask_bits if mask_bits <= _MAX_WHOLE_BITS else _BLOCK_BITS
    wanted = automatic if reservoir.block == AUTO else int(reservoir.block)
    return replace(reservoir, block=min(wanted, mask_bits))
