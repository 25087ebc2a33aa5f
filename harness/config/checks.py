"""The checks of a configuration that need neither data nor machine."""

import difflib
import math
from collections.abc import Sequence
from typing import Any

from harness.config.schema import (
    AUTO,
    CUES,
    DTYPES,
    EXECUTORS,
    UNIT_MASK,
    Config,
    ReservoirConfig,
    TrainConfig,
    leaf,
)
from harness.data.catalogue import DATASETS
from harness.errors import UserError
from harness.places.places import check_url, is_url
from supsup_core.bits.infer import ALGORITHMS
from supsup_core.bits.shards import SHARDED_ALGORITHMS
from supsup_core.inference.algorithms import GRADIENT_ALGORITHMS
from supsup_core.inference.forward import FORWARD_ALGORITHMS
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.methods import METHODS
from supsup_core.networks.mlp import NETWORKS
from supsup_core.reservoirs.rules import RULES
from supsup_core.tasks import FAMILIES
from supsup_core.training.optimizers import OPTIMIZERS
from supsup_core.training.recipe import DECAYS


def check(config: Config) -> None:
    """Check every value that can be checked without data or machine.

    Raises:
        UserError: naming the key, what was expected and what came.
    """
    for key, least in _LEAST.items():
        at_least(key, leaf(config, key), least)
    for key in ("evaluate.tasks", "evaluate.batches"):
        if (value := leaf(config, key)) is not None:
            at_least(key, value, 1, instead="null")
    for key, known in _KNOWN.items():
        one_of(key, leaf(config, key), known)
    if config.train.dtype != AUTO:
        one_of("train.dtype", config.train.dtype, DTYPES)
    for key in ("train.block", "reservoir.block", "actors.train", "actors.evaluate"):
        if (value := leaf(config, key)) != AUTO:
            at_least(key, value, 1, instead=AUTO)
    _names("evaluate.algorithms", config.evaluate.algorithms, ALGORITHMS)
    # The forward algorithms minimise nothing.
    if config.evaluate.objectives or set(config.evaluate.algorithms) - set(FORWARD_ALGORITHMS):
        _names("evaluate.objectives", config.evaluate.objectives, tuple(OBJECTIVES))
    for key in ("train.learning_rate", "train.temperature", "evaluate.rate"):
        if not 0 < leaf(config, key) < math.inf:
            raise UserError(f"{key} must be > 0, got {leaf(config, key)}")
    _check_means(config.train)
    _check_reservoir(config.reservoir)
    if not 0 < config.actors.gpus <= 1:
        raise UserError(f"actors.gpus must be in (0, 1], got {config.actors.gpus}")
    _check_network(config)
    _check_checkpoints(config)
    _check_shards(config)
    _check_unit_mask(config)
    if config.evaluate.num_images > config.evaluate.batch_size:
        raise UserError(
            f"evaluate.num_images must be at most evaluate.batch_size = "
            f"{config.evaluate.batch_size}, got {config.evaluate.num_images}"
        )
    if config.run_dir is not None and is_url(config.run_dir):
        check_url(config.run_dir)


_LEAST = {
    "tasks": 1,
    "seed": 0,
    "outputs": 1,
    "train.steps": 1,
    "train.batch_size": 1,
    "evaluate.batch_size": 1,
    "evaluate.num_images": 1,
    "evaluate.distractors": 0,
    "evaluate.log_base": 2,
    "evaluate.steps": 1,
    "reservoir.most_steps": 1,
    "actors.shards": 1,
}

_KNOWN = {
    "data": DATASETS,
    "family": tuple(FAMILIES),
    "network": NETWORKS,
    "method": (*METHODS, UNIT_MASK),
    "executor": EXECUTORS,
    "train.decay": DECAYS,
    "train.optimizer": OPTIMIZERS,
}


def at_least(key: str, value: Any, least: int, instead: str | None = None) -> None:
    """Refuse what is no whole number, or below the least there may be."""
    if not isinstance(value, int) or value < least:
        other = f"{instead} or " if instead else ""
        raise UserError(
            f"{key} must be {other}a whole number >= {least}, got {value}: "
            f"try {key}={instead or least}"
        )


def one_of(key: str, value: Any, known: Sequence[str]) -> None:
    """Refuse a name that is not known."""
    if value not in known:
        raise UserError(must_be_one_of(key, value, known))


def _names(key: str, values: Sequence[str], known: Sequence[str]) -> None:
    if not values:
        raise UserError(f"{key} must have a name at least, got []: for example {key}=[{known[0]}]")
    for value in values:
        one_of(key, value, known)
    once = list(dict.fromkeys(values))
    if len(once) < len(values):
        typed, wanted = ",".join(values), ",".join(once)
        raise UserError(f"{key} must have each name once, got [{typed}]: try {key}=[{wanted}]")


def must_be_one_of(key: str, value: Any, known: Sequence[str]) -> str:
    """Say what a key may be, what came, and the name that was probably meant."""
    near = difflib.get_close_matches(str(value), known, n=1)
    hint = f": did you mean {key}={near[0]}?" if near else f": for example {key}={known[0]}"
    return f"{key} must be one of {', '.join(known)}, got {value!r}{hint}"


def _check_means(train: TrainConfig) -> None:
    for key in ("smoothing", "momentum"):
        if not 0 <= getattr(train, key) < 1:
            raise UserError(f"train.{key} must be in [0, 1), got {getattr(train, key)}")
    if train.momentum and train.optimizer == "rmsprop":
        raise UserError(
            f"train.momentum goes with adam and sgd, got {train.momentum} with rmsprop: "
            "leave it out, or try train.optimizer=adam"
        )


def _check_network(config: Config) -> None:
    if (config.network == "mlp") != (config.hidden is not None):
        raise UserError(
            "hidden widths go with network=mlp and with no other, got "
            f"network={config.network} hidden={config.hidden}: for example "
            "network=mlp hidden=[300,300]"
        )
    if config.hidden is not None and (not config.hidden or min(config.hidden) < 1):
        raise UserError(f"hidden must be one or more widths >= 1, got {config.hidden}")


def _check_checkpoints(config: Config) -> None:
    checkpoints = config.evaluate.checkpoints
    if checkpoints == AUTO:
        return
    if not isinstance(checkpoints, list) or not all(
        isinstance(k, int) and not isinstance(k, bool) for k in checkpoints
    ):
        raise UserError(
            "evaluate.checkpoints must be auto or a list of whole numbers such as [10,250], "
            f"got {checkpoints!r}"
        )
    wrong = [k for k in checkpoints if not 1 <= k <= config.tasks]
    if wrong:
        raise UserError(
            f"evaluate.checkpoints must lie in [1, tasks] = [1, {config.tasks}], got {wrong}: "
            "lower them or raise tasks"
        )


def _check_shards(config: Config) -> None:
    if config.actors.shards == 1:
        return
    whole = [name for name in config.evaluate.algorithms if name not in SHARDED_ALGORITHMS]
    if whole:
        raise UserError(
            f"evaluate.algorithms must be among {', '.join(SHARDED_ALGORITHMS)} where "
            f"actors.shards > 1, got {', '.join(whole)}: try "
            f"evaluate.algorithms=[{','.join(SHARDED_ALGORITHMS)}]"
        )
    if config.evaluate.distractors:
        raise UserError(
            f"evaluate.distractors must be 0 where actors.shards > 1, got "
            f"{config.evaluate.distractors}: leave one of them out"
        )
    if config.evaluate.reservoir:
        raise UserError(
            "evaluate.reservoir must be false where actors.shards > 1, got true: recall by "
            "harness/recall.py afterwards"
        )


def _check_reservoir(reservoir: ReservoirConfig) -> None:
    _names("reservoir.rules", reservoir.rules, tuple(RULES))
    _names("reservoir.cues", reservoir.cues, CUES)
    if not 0 <= reservoir.share <= 1:
        raise UserError(f"reservoir.share must be in [0, 1], got {reservoir.share}")


def _check_unit_mask(config: Config) -> None:
    """A mask over units goes with less than one over weights."""
    if config.method != UNIT_MASK:
        return
    known = tuple(GRADIENT_ALGORITHMS)
    if other := [name for name in config.evaluate.algorithms if name not in known]:
        raise UserError(
            f"evaluate.algorithms must be among {', '.join(known)} with method=unit_mask, got "
            f"{', '.join(other)}: try evaluate.algorithms=[one_shot], or begin the run with "
            f"{_PRESET}"
        )
    if config.evaluate.num_images < 2:
        raise UserError(
            "evaluate.num_images must be >= 2 with method=unit_mask, whose units are normalised "
            f"over a batch, got {config.evaluate.num_images}: try evaluate.num_images="
            f"{config.evaluate.batch_size}, or begin the run with {_PRESET}"
        )
    if config.train.batch_size < 2:
        raise UserError(
            "train.batch_size must be >= 2 with method=unit_mask, whose units are normalised "
            f"over a batch, got {config.train.batch_size}: try train.batch_size=128"
        )
    if config.train.dtype not in (AUTO, "float32"):
        raise UserError(
            f"train.dtype must be auto or float32 with method=unit_mask, got {config.train.dtype}: "
            "leave it out"
        )
    if config.actors.shards > 1:
        raise UserError(
            f"actors.shards must be 1 with method=unit_mask, got {config.actors.shards}: leave it "
            "out, for these masks are small"
        )


# Sets all that masks over units go with.
_PRESET = "experiment=reservoir for all that goes with it"
