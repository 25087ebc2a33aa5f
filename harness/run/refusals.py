"""What a run directory, a disk or the data refuse, as one line for the user."""

import errno
import logging
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.config.options import make_named
from harness.config.schema import AUTO, DEFAULT_ALGORITHMS, Config
from harness.data.dataset import Dataset
from harness.errors import UserError
from harness.places.places import Place
from harness.plan.capabilities import Capabilities
from supsup_core.names import ALGORITHMS, FAMILIES, SUPERFLUOUS_OBJECTIVES
from supsup_core.reservoirs.rules import reservoir_bytes
from supsup_core.tasks.rotated import Rotated, angle_between

logger = logging.getLogger("harness")

# Beside the masks: the log, the tables, and a chunk that is written before it replaces another.
_SPARE_BYTES = 16 * 1024 * 1024

_PATH_ERRORS = {
    errno.EACCES: "may not be written by this user",
    errno.EPERM: "may not be written by this user",
    errno.EROFS: "lies on a read-only file system",
    errno.ENOTDIR: "lies below a file",
    errno.EEXIST: "is a file, not a folder",
    errno.ENOENT: "cannot be made there",
    errno.ENAMETOOLONG: "has too long a name",
    errno.ENOSPC: "has no room left on its disk",
    errno.EDQUOT: "has no room left in this user's quota",
}


@contextmanager
def readable_path_errors(directory: Place) -> Iterator[None]:
    """Turn what a disk refuses into a line for the user.

    Raises:
        UserError: the folder cannot be made or written, or is full.
    """
    try:
        yield
    except OSError as error:
        reason = _PATH_ERRORS.get(error.errno or 0)
        if reason is None:
            raise
        advice = (
            "free some and type the same command again; what is committed is kept"
            if error.errno in (errno.ENOSPC, errno.EDQUOT)
            else "choose another run_dir"
        )
        raise UserError(f"run directory {directory} {reason}: {advice}") from error


def check_against_data(config: Config, data: Dataset) -> None:
    """Check what depends on the data set.

    Raises:
        UserError: more tasks than the family holds, or too few outputs.
    """
    family = make_named("family", FAMILIES, config.family, config.family_options)
    limit = family.max_tasks(data.num_classes)
    if limit is not None and config.tasks > limit:
        raise UserError(
            f"tasks must be at most {limit} for family={config.family} of the "
            f"{data.num_classes} classes of {config.data}, got {config.tasks}"
        )
    if config.outputs < data.num_classes:
        raise UserError(
            f"outputs must be at least {data.num_classes}, the classes of {config.data}, "
            f"got {config.outputs}"
        )
    blind = [name for name in config.evaluate.objectives if name in SUPERFLUOUS_OBJECTIVES]
    if config.outputs == data.num_classes and blind:
        raise UserError(
            f"objective {blind[0]} needs superfluous neurons, got outputs={config.outputs} for "
            f"{data.num_classes} classes: raise outputs or set evaluate.objectives=[H]"
        )
    if isinstance(family, Rotated) and angle_between(config.tasks) < 1:
        logger.warning(
            "%d rotations lie %.3g degrees apart; below 1 degree neighbours look alike",
            config.tasks,
            angle_between(config.tasks),
        )


def check_capabilities(config: Config, capabilities: Capabilities) -> None:
    """Check what depends on the network, the method and the engine that infers.

    Args:
        config: as typed, or resolved.
        capabilities: what the run's network, method and engine can do.

    Raises:
        UserError: naming the key, what was expected and what came.
    """
    if capabilities.order != "any":
        raise UserError(
            f"method must train tasks in any order, got method={config.method}, which needs "
            f"earlier tasks (order: {capabilities.order}): try method=threshold"
        )
    _check_algorithms(config, capabilities.supports)
    if capabilities.normalises:
        _check_batches(config)
    if not capabilities.keeps_alone:
        _check_keeps(config)
    who = f"network={config.network} and method={config.method}"
    if config.train.dtype not in (AUTO, "float32") and not capabilities.bfloat16_serves:
        raise UserError(
            f"train.dtype must be auto or float32 with {who}, got {config.train.dtype}: leave it "
            "out"
        )
    if config.actors.shards > 1 and not capabilities.bits_serve:
        raise UserError(
            f"actors.shards must be 1 with {who}, got {config.actors.shards}: leave it out"
        )


def _check_algorithms(config: Config, supports: Collection[str]) -> None:
    """Refuse algorithms that the engine does not have; `auto` must leave one."""
    algorithms = config.evaluate.algorithms
    asked = DEFAULT_ALGORITHMS if algorithms == AUTO else algorithms
    other = [name for name in asked if name not in supports]
    if other and (algorithms != AUTO or len(other) == len(asked)):
        known = [name for name in ALGORITHMS if name in supports]
        raise UserError(
            f"evaluate.algorithms must be among {', '.join(known)} with network={config.network} "
            f"and method={config.method}, got {', '.join(other)}: try "
            f"evaluate.algorithms=[{known[0]}]"
        )


def _check_keeps(config: Config) -> None:
    """Refuse what knows states of keep bits alone, where states are more."""
    who = f"network={config.network} and method={config.method}"
    if config.evaluate.distractors:
        raise UserError(
            f"evaluate.distractors must be 0 with {who}, whose states are more than one plane of "
            f"bits, got {config.evaluate.distractors}: leave it out"
        )
    if config.evaluate.reservoir:
        raise UserError(
            f"evaluate.reservoir must be false with {who}, whose states are more than one plane "
            "of bits, got true: leave it out"
        )


def _check_batches(config: Config) -> None:
    """Refuse batches of one input, over which nothing can be normalised."""
    evaluate = config.evaluate
    sizes: dict[str, int | str] = {
        "train.batch_size": config.train.batch_size,
        "evaluate.batch_size": evaluate.batch_size,
        "evaluate.num_images": evaluate.num_images,
    }
    for key, size in sizes.items():
        if size != AUTO and int(size) < 2:
            enough = evaluate.batch_size if key == "evaluate.num_images" else 128
            raise UserError(
                f"{key} must be >= 2 with network={config.network}, which normalises over a "
                f"batch, got {size}: try {key}={enough}"
            )


def check_memory(config: Config, num_bits: int) -> None:
    """Refuse a reservoir that this machine could not hold.

    Raises:
        UserError: naming the key that makes it smaller.
    """
    if not config.evaluate.reservoir:
        return
    block = int(config.reservoir.block)  # resolved: no longer auto
    needed, rule = max(
        (reservoir_bytes(rule, num_bits, block), rule) for rule in config.reservoir.rules
    )
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise UserError(
            f"a reservoir by {rule} must fit in memory, got reservoir.block={block}, which takes "
            f"{needed / 1e9:.0f} GB for masks of {num_bits} bits, and {there / 1e9:.0f} GB here: "
            f"try reservoir.block={max(1, block * there // (2 * needed))}"
        )


def check_room(directory: Place, num_bytes: int) -> None:
    """Refuse a disk without room for a run.

    Raises:
        UserError: how much is needed, and how much there is.
    """
    if not isinstance(directory, Path):
        return  # object storage has room
    free = shutil.disk_usage(directory).free
    needed = num_bytes + _SPARE_BYTES
    if free < needed:
        raise UserError(
            f"run directory {directory} needs {needed / 1e6:.0f} MB, got {free / 1e6:.0f} MB of "
            "free disk: free some, or choose another run_dir"
        )
