"""Refuse a configuration whose data cannot fit into this machine's memory.

The checks use lower bounds of the needed memory, so a refused start would have failed in any case.
Without the checks, the kernel would kill one process after another, for minutes.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch
from torch import nn

from harness.config.checks import must_be
from harness.config.options import make_named, options_of_kind
from harness.config.schema import Config
from harness.errors import UserError
from harness.places.machine import memory_bytes
from harness.plan.pools import pool_sizes
from harness.plan.resolve import STATE_BYTES_PER_GAIN
from harness.run.spec import RunSpec
from supsup_core.names import NETWORKS
from supsup_core.reservoirs.rules import reservoir_bytes
from supsup_core.states.layout import StateLayout


def check_weights(config: Config, input_shape: Sequence[int], num_classes: int) -> None:
    """Refuse a network if its weights do not fit into this machine's memory.

    Each process on this machine has a copy of the weights. The check computes the size of the
    weights, but does not make them.

    Args:
        config: the configuration. It may still contain `auto`.
        input_shape: the shape of one image.
        num_classes: the number of classes. A network has at least one output per class.

    Raises:
        UserError: the weights do not fit. The error names the key to change.
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
            f"smaller: the network of an actor takes {size}, and the networks of all actors must "
            f"fit into {room}",
            config.actors.train,
            f"actors.train={most} actors.evaluate=1",
        )
    fewest = _process_bytes(replace(config, outputs=num_classes), input_shape) or 0
    if needed > 2 * fewest and fewest * num_processes <= there:
        fitting = config.outputs * there // (4 * num_processes * needed)
        raise must_be(
            "outputs",
            f"smaller: weights and logits take {size}, and must fit into {room}",
            config.outputs,
            f"outputs={max(num_classes, fitting)}",
        )
    alone = replace(config, train=replace(config.train, batch_size=1))
    least = _process_bytes(alone, input_shape) or 0
    if needed > 2 * least and least * num_processes <= there:
        fitting = config.train.batch_size * there // (4 * num_processes * needed)
        raise must_be(
            "train.batch_size",
            f"smaller: weights and logits take {size}, and must fit into {room}",
            config.train.batch_size,
            f"train.batch_size={max(1, fitting)}",
        )
    raise _narrower(config, f"smaller: the weights take {size}, and must fit into {room}")


def _process_bytes(config: Config, input_shape: Sequence[int]) -> int | None:
    """Compute how many bytes of memory a worker needs at least.

    Returns:
        The number of bytes. None if it cannot be computed without making the network.
    """
    weights = _weight_bytes(config, input_shape)
    if weights is None:
        return None
    # A worker holds the weights, one score or gradient per weight, and the logits of a batch with
    # their gradients. All these values are float32.
    return 2 * weights + 8 * config.train.batch_size * config.outputs


def _weight_bytes(config: Config, input_shape: Sequence[int]) -> int | None:
    """Compute the bytes of a network's fixed weights, without making the weights.

    Returns:
        The number of bytes. None if it cannot be computed without making the network.
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
        # A module may compute with its parameters, which fails on the device "meta". Any other
        # error of the module is raised again when the network is made.
        return None
    if isinstance(made, nn.Module):
        return 4 * sum(parameter.numel() for parameter in made.parameters())
    number = 0
    for tensor in made.tensors:
        number += tensor.num_gains * (tensor.fan_in if tensor.over == "units" else 1)
    return 4 * number


def _num_processes(config: Config) -> int:
    """Return the number of processes that hold the weights on this machine.

    The workers of a cluster may be on other machines. So if the run uses a cluster, only the driver
    is counted.
    """
    if config.executor != "ray" or os.environ.get("RAY_ADDRESS"):
        return 1
    cpus = os.cpu_count() or 1
    try:
        return sum(size.actors for size in pool_sizes(config, cpus=cpus, gpus=0))
    except ValueError:
        return 1  # actors.train is above the number of CPUs, which another check refuses


def _narrower(config: Config, expected: str) -> UserError:
    """Make the error for a network whose hidden layers have too many weights."""
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
        trains: whether this start trains masks.

    Raises:
        UserError: a block, the masks of a checkpoint, the distractors or a reservoir do not fit.
            The error names the key to lower.
    """
    there = memory_bytes()
    room = f"the {there / 1e9:.0f} GB of this machine's memory"
    if trains:
        _check_block(config, layout, there, room)
    # Inference holds the packed rows, and a second copy of their bits in the order of the weights.
    num_masks, each = max(config.evaluate.checkpoints, default=0), 2 * layout.row_bytes
    if each * (num_masks + config.evaluate.distractors) > there:
        most = there // each - num_masks
        if most < 0:
            raise must_be(
                "evaluate.checkpoints",
                f"smaller: the masks of a checkpoint must fit into {room}",
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


def check_together(specs: Sequence[RunSpec]) -> None:
    """Refuse the runs of a command if their data do not fit into this machine's memory together.

    Each actor has the weights of all runs. An evaluation actor also keeps, for each run, the masks
    of a checkpoint, and perhaps a reservoir.

    Args:
        specs: the specifications of the runs. No value of their configurations is `auto`.

    Raises:
        UserError: the data of all runs do not fit.
    """
    there = memory_bytes()
    totals = list(accumulate(map(_kept_bytes, specs)))
    fitting = sum(total <= there for total in totals)
    if 1 <= fitting < len(specs):
        raise UserError(
            f"runs of one command must be at most {fitting}, because the weights and masks of all "
            f"runs must fit into the {there / 1e9:.0f} GB of this machine's memory, got "
            f"{len(specs)}: divide the runs between several commands, and type them one by one"
        )


def _kept_bytes(spec: RunSpec) -> int:
    """Compute how many bytes the workers of all pools keep for a run, at least."""
    config, layout = spec.config, spec.layout
    weights = _weight_bytes(config, spec.input_shape) or 0
    num_masks = max(config.evaluate.checkpoints, default=0) + config.evaluate.distractors
    kept = weights * _num_processes(config) + 2 * layout.row_bytes * num_masks
    if config.evaluate.reservoir:
        block = int(config.reservoir.block)  # resolved: no longer auto
        kept += max(reservoir_bytes(r, layout.num_bits, block) for r in config.reservoir.rules)
    return kept


def _check_block(config: Config, layout: StateLayout, there: int, room: str) -> None:
    block = int(config.train.block)  # resolved: no longer auto
    each = STATE_BYTES_PER_GAIN * sum(tensor.num_gains for tensor in layout.tensors)
    if block > 1 and block * each > there:
        raise must_be(
            "train.block",
            f"smaller: each task of a block takes {each / 1e9:.1f} GB in training, and the "
            f"block must fit into {room}",
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
            f"smaller: a reservoir with rule {rule} takes {needed / 1e9:.0f} GB for masks of "
            f"{num_bits} bits, and must fit into {room}",
            block,
            f"reservoir.block={max(1, block * there // (2 * needed))}",
        )
