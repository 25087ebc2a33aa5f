"""Refuse a configuration whose data cannot fit into this machine's memory.

The sizes are lower bounds: a start that is refused here could not have ended. Without these checks
the kernel would kill one process after another, for minutes.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from harness.config.checks import must_be
from harness.config.options import make_named, options_of_kind
from harness.config.schema import Config
from harness.errors import UserError
from harness.plan.pools import pool_sizes
from harness.plan.resolve import STATE_BYTES_PER_GAIN
from supsup_core.names import NETWORKS
from supsup_core.reservoirs.rules import reservoir_bytes
from supsup_core.states.layout import StateLayout

# Files with the limit of a container, for both versions of cgroups.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_bytes() -> int:
    """Return this machine's memory, or the smaller limit of the container, in bytes."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in map(Path, _LIMITS):
        try:
            found.append(int(path.read_text(encoding="ascii")))
        except (OSError, ValueError):  # no cgroups of this version, or "max"
            continue
    return min(found)


def check_weights(config: Config, input_shape: Sequence[int], num_classes: int) -> None:
    """Refuse a network whose weights do not fit into memory, once per process that works here.

    Nothing of the size of the weights is made.

    Args:
        config: the configuration; its values of `auto` may be unresolved.
        input_shape: the shape of one image.
        num_classes: the number of classes, which is the smallest number of outputs.

    Raises:
        UserError: the weights do not fit. The error names the key that makes them smaller.
    """
    there, num_processes = memory_bytes(), _num_processes(config)
    needed = _process_bytes(config, input_shape)
    if needed is None or needed * num_processes <= there:
        return
    size, room = f"{needed / 1e9:.1f} GB", f"the {there / 1e9:.0f} GB of this machine's memory"
    if needed <= there:
        most = max(1, there // needed - 1)
        raise must_be(
            "actors.train",
            f"so few that the network of each actor, which takes {size}, fits into {room}",
            config.actors.train,
            f"actors.train={most} actors.evaluate=1",
        )
    fewest = _process_bytes(replace(config, outputs=num_classes), input_shape) or 0
    if needed > 2 * fewest and fewest * num_processes <= there:
        fitting = config.outputs * there // (4 * num_processes * needed)
        raise must_be(
            "outputs",
            f"so few that weights and logits, which take {size}, fit into {room}",
            config.outputs,
            f"outputs={max(num_classes, fitting)}",
        )
    alone = replace(config, train=replace(config.train, batch_size=1))
    least = _process_bytes(alone, input_shape) or 0
    if needed > 2 * least and least * num_processes <= there:
        fitting = config.train.batch_size * there // (4 * num_processes * needed)
        raise must_be(
            "train.batch_size",
            f"so small that weights and logits, which take {size}, fit into {room}",
            config.train.batch_size,
            f"train.batch_size={max(1, fitting)}",
        )
    raise _narrower(config, f"so small that the weights, which take {size}, fit into {room}")


def _process_bytes(config: Config, input_shape: Sequence[int]) -> int | None:
    """Compute a lower bound of the memory of a worker, in bytes; None if it is unknown."""
    weights = _weight_bytes(config, input_shape)
    if weights is None:
        return None
    # A worker holds the weights, as many scores or gradients, and the logits of a batch with their
    # gradients.
    return 2 * weights + 8 * config.train.batch_size * config.outputs


def _weight_bytes(config: Config, input_shape: Sequence[int]) -> int | None:
    """Compute the bytes of a network's fixed weights, without making the weights.

    Returns:
        The number of bytes; None if only the finished network tells.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            made = make_named(
                "network",
                NETWORKS,
                config.network,
                config.network_options,
                input_shape,
                config.outputs,
            )
    except UserError:
        raise
    except Exception:
        return None  # the module computes with its parameters; errors come up when it is made
    if isinstance(made, nn.Module):
        return 4 * sum(parameter.numel() for parameter in made.parameters())
    number = 0
    for tensor in made.tensors:
        number += tensor.num_gains * (tensor.fan_in if tensor.over == "units" else 1)
    return 4 * number


def _num_processes(config: Config) -> int:
    """Return the number of processes that hold the weights on this machine.

    The machines of a cluster are not known here, so only the driver counts.
    """
    if config.executor != "ray" or os.environ.get("RAY_ADDRESS"):
        return 1
    cpus = os.cpu_count() or 1
    try:
        return sum(size.actors for size in pool_sizes(config, cpus=cpus, gpus=0))
    except ValueError:
        return 1  # more actors than CPUs: Ray refuses them


def _narrower(config: Config, expected: str) -> UserError:
    """Make the error for a network with too many weights between its hidden layers."""
    for name, option in options_of_kind("network", config).items():
        if name in config.network_options:
            value = config.network_options[name]
            return must_be(option.key, expected, value, f"{option.key}={option.example()}")
    return must_be("network", expected, config.network, f"network={Config().network}")


def check_memory(config: Config, layout: StateLayout, *, trains: bool) -> None:
    """Refuse work that does not fit into this machine's memory.

    Args:
        config: the resolved configuration.
        layout: the layout of a state.
        trains: whether masks are trained.

    Raises:
        UserError: a block, the masks of a checkpoint, the distractors or a reservoir do not fit.
            The error names the key that makes them smaller.
    """
    there = memory_bytes()
    room = f"the {there / 1e9:.0f} GB of this machine's memory"
    if trains:
        _check_block(config, layout, there, room)
    # Inference holds the rows, and the same bits again in the order of the weights.
    num_masks, each = max(config.evaluate.checkpoints, default=0), 2 * layout.row_bytes
    if each * (num_masks + config.evaluate.distractors) > there:
        most = there // each - num_masks
        if most < 0:
            raise must_be(
                "evaluate.checkpoints",
                f"so small that the masks of a checkpoint fit into {room}",
                config.evaluate.checkpoints,
                f"evaluate.checkpoints=[{max(1, there // (2 * each))}]",
            )
        raise must_be(
            "evaluate.distractors",
            f"at most {most}, because {num_masks} masks with more distractors exceed {room}",
            config.evaluate.distractors,
            f"evaluate.distractors={most // 2}",
        )
    if config.evaluate.reservoir:
        _check_reservoir(config, layout.num_bits, there, room)


def _check_block(config: Config, layout: StateLayout, there: int, room: str) -> None:
    block = int(config.train.block)  # resolved: no longer auto
    each = STATE_BYTES_PER_GAIN * sum(tensor.num_gains for tensor in layout.tensors)
    if block > 1 and block * each > there:
        raise must_be(
            "train.block",
            f"so small that the training of a block fits into {room}; a task takes "
            f"{each / 1e9:.1f} GB",
            block,
            f"train.block={max(1, there // (2 * each))}",
        )


def _check_reservoir(config: Config, num_bits: int, there: int, room: str) -> None:
    block = int(config.reservoir.block)  # resolved: no longer auto
    needed, rule = max(
        (reservoir_bytes(rule, num_bits, block), rule) for rule in config.reservoir.rules
    )
    if needed > there:
        raise must_be(
            "reservoir.block",
            f"so small that a reservoir by {rule} fits into {room}; for masks of {num_bits} bits "
            f"it takes {needed / 1e9:.0f} GB",
            block,
            f"reservoir.block={max(1, block * there // (2 * needed))}",
        )
