"""Checks that refuse a configuration or a run directory, with a one-line error for the user."""

import errno
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.config.checks import must_be
from harness.config.kinds import as_typed
from harness.config.names import AUTO, DEFAULT_ALGORITHMS
from harness.config.options import make_named
from harness.config.schema import Config, is_streamed
from harness.data.dataset import Dataset
from harness.errors import UserError
from harness.places.places import Place
from harness.plan.capabilities import Capabilities
from harness.run.same_tasks import family_errors
from harness.run.spec import RunSpec
from supsup_core.names import (
    ALGORITHMS,
    FAMILIES,
    GIVEN,
    NO_TRANSFER,
    SUPERFLUOUS_OBJECTIVES,
)

# Disk space for the log, the tables, and a new chunk that is written before the old chunk is
# deleted.
_SPARE_BYTES = 16 * 1024 * 1024

_PATH_ERRORS = {
    errno.EACCES: "may not be written by this user",
    errno.EPERM: "may not be written by this user",
    errno.EROFS: "lies on a read-only file system",
    errno.ENOTDIR: "has a file in place of a parent folder",
    errno.EEXIST: "is a file, not a folder",
    errno.ENOENT: "cannot be created",
    errno.ENAMETOOLONG: "has a name that is too long",
    errno.ENOSPC: "has no room left on its disk",
    errno.EDQUOT: "has no room left in this user's quota",
}


@contextmanager
def readable_path_errors(directory: Place) -> Iterator[None]:
    """Turn an OSError about the run directory into a one-line error for the user.

    Raises:
        UserError: the directory cannot be made or written, or its disk is full.
        OSError: another error; it is raised unchanged.
    """
    try:
        yield
    except OSError as error:
        reason = _PATH_ERRORS.get(error.errno or 0)
        if reason is None:
            raise
        advice = (
            "free some space and type the same command again; committed results are kept"
            if error.errno in (errno.ENOSPC, errno.EDQUOT)
            else "choose another run_dir"
        )
        raise UserError(f"run directory {directory} {reason}: {advice}") from error


def check_against_data(config: Config, data: Dataset) -> None:
    """Check the configuration keys that depend on the data set.

    Raises:
        UserError: there are more tasks than the family can make, there are fewer outputs than
            classes, or an objective needs superfluous neurons and there are none.
    """
    family = make_named("family", FAMILIES, config.family, config.family_options)
    limit = family.max_tasks(data.num_classes)
    if limit is not None and config.tasks > limit:
        raise UserError(
            f"tasks must be at most {limit} for family={config.family} with the "
            f"{data.num_classes} classes of {config.data}, got {config.tasks}: try tasks={limit}"
        )
    spec = RunSpec(config, data.input_shape, data.num_classes)
    with family_errors(config.family):
        num_real = spec.num_real
    if config.outputs < num_real:
        whose = config.data if num_real == data.num_classes else f"a task of {config.data}"
        raise UserError(
            f"outputs must be at least {num_real}, the number of classes of {whose}, got "
            f"{config.outputs}: try outputs={max(500, 2 * num_real)}"
        )
    blind = [name for name in config.evaluate.objectives if name in SUPERFLUOUS_OBJECTIVES]
    if config.outputs == num_real and blind:
        seeing = [name for name in config.evaluate.objectives if name not in blind] or ["H"]
        raise must_be(
            "evaluate.objectives",
            f"a list without {', '.join(blind)}, because outputs={config.outputs} for "
            f"{num_real} classes leaves no superfluous neurons",
            config.evaluate.objectives,
            f"evaluate.objectives={as_typed(seeing)}",
        )
    objective = config.allocation.objective
    if is_streamed(config) and config.outputs == num_real and objective in SUPERFLUOUS_OBJECTIVES:
        raise must_be(
            "allocation.objective",
            f"an objective without superfluous neurons, because outputs={config.outputs} for "
            f"{num_real} classes leaves none",
            objective,
            "allocation.objective=H",
        )


def check_capabilities(config: Config, capabilities: Capabilities) -> None:
    """Check the configuration keys that depend on the network, the finder and the engine.

    Args:
        config: the configuration, as typed or resolved.
        capabilities: the capabilities of the run's network, finder and engine.

    Raises:
        UserError: the network, the finder or the engine does not allow a value. The error names
            the key, the value and the allowed values.
    """
    _check_transfer(config, capabilities)
    _check_algorithms(config, capabilities.supports)
    if capabilities.normalises:
        _check_batches(config)
    if not capabilities.keeps_alone:
        _check_keeps(config, trains_weights=capabilities.trains_weights)
    who = f"network={config.network} and method={config.method}"
    if config.train.dtype not in (AUTO, "float32") and not capabilities.bfloat16_serves:
        raise must_be(
            "train.dtype", f"auto or float32 with {who}", config.train.dtype, "train.dtype=auto"
        )
    if is_streamed(config):
        check_any_order(config, capabilities, "with scenario=nns, where the task is not given")
    if is_streamed(config) and config.allocation.rule == "margin" and not capabilities.has_planes:
        raise must_be(
            "allocation.rule",
            f"paper with {who}, because a state has no bits to shuffle",
            config.allocation.rule,
            "allocation.rule=paper",
        )
    if config.train.first_learning_rate is not None and capabilities.order != "after_first":
        raise must_be(
            "train.first_learning_rate",
            f"null with method={config.method}, whose tasks do not need the result of task 0 alone",
            config.train.first_learning_rate,
            "train.first_learning_rate=null",
        )
    if config.actors.shards > 1 and not capabilities.bits_serve:
        raise must_be("actors.shards", f"1 with {who}", config.actors.shards, "actors.shards=1")


def _check_transfer(config: Config, capabilities: Capabilities) -> None:
    """Raise an error if there are no masks to transfer, or if a block has too many tasks."""
    if config.train.transfer != NO_TRANSFER and not capabilities.transfers:
        raise must_be(
            "train.transfer",
            f"none with method={config.method}, whose first scores cannot start from earlier masks",
            config.train.transfer,
            "train.transfer=none",
        )
    in_turn = capabilities.carries and capabilities.order == "sequence"
    if in_turn and config.train.block not in (AUTO, 1):
        raise must_be(
            "train.block",
            f"1 with method={config.method} and train.transfer={config.train.transfer}, because "
            "each task continues with the data of the previous task",
            config.train.block,
            "train.block=1",
        )


def check_any_order(config: Config, capabilities: Capabilities, where: str) -> None:
    """Check that tasks can be trained in any order, because no task needs earlier tasks.

    Args:
        config: the configuration.
        capabilities: the capabilities of the run's network, finder and engine.
        where: text for the error: where tasks must not need earlier tasks, and why, such as "in a
            search, which trains tasks in any order".

    Raises:
        UserError: tasks need earlier tasks.
    """
    if capabilities.order == "any":
        return
    if config.train.transfer != NO_TRANSFER:
        raise must_be(
            "train.transfer",
            f"none {where}",
            config.train.transfer,
            "train.transfer=none",
        )
    raise must_be(
        "method",
        f"a finder that needs no earlier tasks {where}",
        f"{config.method}, which needs earlier tasks (order: {capabilities.order})",
        "method=threshold",
    )


def _check_algorithms(config: Config, supports: Collection[str]) -> None:
    """Raise an error if the engine does not have an algorithm of the configuration.

    `auto` means all default algorithms that the engine has, or `given` if it has none of them. It
    is refused only if nothing is left.
    """
    algorithms = config.evaluate.algorithms
    asked = (*DEFAULT_ALGORITHMS, GIVEN) if algorithms == AUTO else algorithms
    other = [name for name in asked if name not in supports]
    if other and (algorithms != AUTO or len(other) == len(asked)):
        known = [name for name in ALGORITHMS if name in supports]
        fitting = [name for name in asked if name in known] or [known[0]]
        raise must_be(
            "evaluate.algorithms",
            f"a list with one or more of {', '.join(known)} with network={config.network} and "
            f"method={config.method}",
            other,
            f"evaluate.algorithms={as_typed(fitting)}",
        )


def _check_keeps(config: Config, *, trains_weights: bool) -> None:
    """Raise an error if the configuration asks for distractors or reservoirs.

    This check is for networks and finders whose states are not one plane of keep bits per tensor,
    or whose tasks train weights. (A keep bit of one keeps a weight.) In other states, the bits of
    one plane depend on the bits of another plane. Distractors are drawn without such dependences,
    and a reservoir stores only keep bits. Weights in training belong to a checkpoint, so no task
    can be inferred among distractors, and recalled masks have no weights.
    """
    who = f"network={config.network} and method={config.method}"
    why = "tasks train weights" if trains_weights else "a state is more than one plane of bits"
    if config.evaluate.distractors:
        raise must_be(
            "evaluate.distractors",
            f"0 with {who}, because {why}",
            config.evaluate.distractors,
            "evaluate.distractors=0",
        )
    if config.evaluate.reservoir:
        raise must_be(
            "evaluate.reservoir",
            f"false with {who}, because {why}",
            True,
            "evaluate.reservoir=false",
        )


def _check_batches(config: Config) -> None:
    """Raise an error if a batch has one image, because normalising needs several images."""
    evaluate = config.evaluate
    sizes: dict[str, int | str] = {
        "train.batch_size": config.train.batch_size,
        "evaluate.batch_size": evaluate.batch_size,
        "evaluate.num_images": evaluate.num_images,
    }
    for key, size in sizes.items():
        if size != AUTO and int(size) < 2:
            enough = evaluate.batch_size if key == "evaluate.num_images" else 128
            raise must_be(
                key,
                f">= 2 with network={config.network}, which normalises over a batch",
                size,
                f"{key}={enough}",
            )


def check_room(directory: Place, num_bytes: int) -> None:
    """Raise an error if the disk has too little free space for a run.

    Args:
        directory: the run directory.
        num_bytes: the size of the masks, inputs and weights, in bytes.

    Raises:
        UserError: there is too little free space. The error gives the needed and the free space.
    """
    if not isinstance(directory, Path):
        return  # object storage does not get full
    free = shutil.disk_usage(directory).free
    needed = num_bytes + _SPARE_BYTES
    if free < needed:
        raise UserError(
            f"run directory {directory} needs {needed / 1e6:.0f} MB, got {free / 1e6:.0f} MB of "
            "free disk space: free some space, or choose another run_dir"
        )
