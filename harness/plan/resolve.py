"""What `auto` means for a run: decided once, from the work and not from the machine."""

from dataclasses import replace
from typing import Any

from harness.config.schema import AUTO, UNIT_MASK, Config, ReservoirConfig

# The steps of the automatic checkpoints, and how often they grow tenfold.
_CHECKPOINT_STEPS = (10, 25, 50)

# A block's training state should stay in the last cache: 4 bytes of score, 4 of running
# mean, 2 each of masked sign and gradient for every weight. Measured with two actors on
# LeNet 300-100: 8 tasks are best, at 16 each slows the other down.
_STATE_BYTES_PER_WEIGHT = 12

_BLOCK_STATE_BYTES = 32 * 1024 * 1024

_MAX_BLOCK = 16

# A mask of no more bits goes into one reservoir, a longer one in blocks.
_MAX_WHOLE_BITS = 8192

_BLOCK_BITS = 1024


def automatic_block(num_tasks: int, num_weights: int) -> int:
    """Tasks of a block: as many as fit the caches, and four blocks at least.

    It follows from the work alone, not from the machine: which tasks share a
    block is part of what a mask is.
    """
    fitting = _BLOCK_STATE_BYTES // (_STATE_BYTES_PER_WEIGHT * num_weights)
    quarter = -(-num_tasks // 4)
    return max(1, min(fitting, quarter, _MAX_BLOCK))


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


def resolve(config: Config, *, num_weights: int, mask_bits: int, has_bfloat16: bool) -> Config:
    """Replace every `auto` that changes a result by what it means here.

    Args:
        config: as typed.
        num_weights: of the network.
        mask_bits: of one mask.
        has_bfloat16: whether the training device multiplies bfloat16 matrices.
    """
    train = config.train
    block = automatic_block(config.tasks, num_weights) if train.block == AUTO else train.block
    automatic_dtype = "bfloat16" if has_bfloat16 and config.method != UNIT_MASK else "float32"
    dtype = automatic_dtype if train.dtype == AUTO else train.dtype
    checkpoints = resolve_checkpoints(config.evaluate.checkpoints, config.tasks)
    return replace(
        config,
        train=replace(train, block=block, dtype=dtype),
        evaluate=replace(config.evaluate, checkpoints=checkpoints),
        reservoir=resolve_block(config.reservoir, mask_bits),
    )


def resolve_block(reservoir: ReservoirConfig, mask_bits: int) -> ReservoirConfig:
    """Say how many bits of a mask a reservoir holds together; never more than a mask has."""
    automatic = mask_bits if mask_bits <= _MAX_WHOLE_BITS else _BLOCK_BITS
    wanted = automatic if reservoir.block == AUTO else int(reservoir.block)
    return replace(reservoir, block=min(wanted, mask_bits))
