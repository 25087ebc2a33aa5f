"""What a run directory, a disk or the data refuse, as one line for the user."""

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.config.schema import SUPERFLUOUS_OBJECTIVES, Config
from harness.data.dataset import Dataset
from harness.errors import UserError
from harness.places.places import Place
from supsup_core.reservoirs.rules import reservoir_bytes
from supsup_core.tasks.make import max_tasks
from supsup_core.tasks.rotated import angle_between

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
    limit = max_tasks(config.family, data.num_classes)
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
    if config.family in ("rotated", "permuted_rotated") and angle_between(config.tasks) < 1:
        logger.warning(
            "%d rotations lie %.3g degrees apart; below 1 degree neighbours look alike",
            config.tasks,
            angle_between(config.tasks),
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
