"""The checks of a configuration that need neither data nor machine."""

import difflib
import math
from collections.abc import Sequence
from typing import Any

from harness.config.schema import (
    AUTO,
    CUES,
    DEFAULT_ALGORITHMS,
    DTYPES,
    EXECUTORS,
    OPTION_KEYS,
    Config,
    EvaluateConfig,
    ReservoirConfig,
    TrainConfig,
    leaf,
)
from harness.data.names import DATASETS
from harness.errors import UserError
from harness.places.places import check_url, is_url
from supsup_core.names import (
    ALGORITHMS,
    DECAYS,
    FAMILIES,
    FORWARD_ALGORITHMS,
    METHODS,
    NETWORKS,
    OBJECTIVES,
    OPTIMIZERS,
    RESERVOIR_RULES,
    SHARDED_ALGORITHMS,
)


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
    for key in _AUTO_OR_COUNT:
        if (value := leaf(config, key)) != AUTO:
            at_least(key, value, 1, instead=AUTO)
    _check_algorithms(config.evaluate)
    for key in ("train.learning_rate", "train.temperature", "evaluate.rate"):
        if not 0 < leaf(config, key) < math.inf:
            raise UserError(f"{key} must be > 0, got {leaf(config, key)}")
    _check_means(config.train)
    _check_reservoir(config.reservoir)
    if not 0 < config.actors.gpus <= 1:
        raise UserError(f"actors.gpus must be in (0, 1], got {config.actors.gpus}")
    _check_option_names(config)
    _check_checkpoints(config)
    _check_shards(config)
    num_images, most = config.evaluate.num_images, config.evaluate.batch_size
    if num_images != AUTO and int(num_images) > most:
        raise UserError(
            f"evaluate.num_images must be at most evaluate.batch_size = {most}, got {num_images}"
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
    "evaluate.distractors": 0,
    "evaluate.log_base": 2,
    "evaluate.steps": 1,
    "reservoir.most_steps": 1,
    "actors.shards": 1,
}

_AUTO_OR_COUNT = (
    *("train.block", "evaluate.num_images", "reservoir.block"),
    *("actors.train", "actors.evaluate"),
)

_KNOWN = {
    "data": DATASETS,
    "family": tuple(FAMILIES),
    "network": tuple(NETWORKS),
    "method": tuple(METHODS),
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


def _check_algorithms(evaluate: EvaluateConfig) -> None:
    algorithms = evaluate.algorithms
    if algorithms != AUTO:
        if not isinstance(algorithms, list):
            raise UserError(
                "evaluate.algorithms must be auto or a list of names such as [one_shot,binary], "
                f"got {algorithms!r}"
            )
        _names("evaluate.algorithms", algorithms, ALGORITHMS)
    # The forward algorithms minimise nothing.
    minimises = algorithms == AUTO or set(algorithms) - set(FORWARD_ALGORITHMS)
    if evaluate.objectives or minimises:
        _names("evaluate.objectives", evaluate.objectives, OBJECTIVES)


def _check_means(train: TrainConfig) -> None:
    for key in ("smoothing", "momentum"):
        if not 0 <= getattr(train, key) < 1:
            raise UserError(f"train.{key} must be in [0, 1), got {getattr(train, key)}")
    if train.momentum and train.optimizer == "rmsprop":
        raise UserError(
            f"train.momentum goes with adam and sgd, got {train.momentum} with rmsprop: "
            "leave it out, or try train.optimizer=adam"
        )
    if not 0 <= train.weight_decay < math.inf:
        raise UserError(
            f"train.weight_decay must be >= 0, got {train.weight_decay}: for example "
            "train.weight_decay=1e-4"
        )


def _check_option_names(config: Config) -> None:
    """Refuse options that no command line can name; harness/config/options.py checks the rest."""
    for key in OPTION_KEYS.values():
        for option in getattr(config, key):
            if not str(option).isidentifier():
                raise UserError(
                    f"{key} must have names such as density, got {option!r}: type {key}.NAME=VALUE"
                )


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
    """Check that what is evaluated can be split over several actors.

    Raises:
        UserError: naming the key that cannot.
    """
    if config.actors.shards == 1:
        return
    algorithms = config.evaluate.algorithms
    asked = DEFAULT_ALGORITHMS if algorithms == AUTO else algorithms
    whole = [name for name in asked if name not in SHARDED_ALGORITHMS]
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
    _names("reservoir.rules", reservoir.rules, tuple(RESERVOIR_RULES))
    _names("reservoir.cues", reservoir.cues, CUES)
    if not 0 <= reservoir.share <= 1:
        raise UserError(f"reservoir.share must be in [0, 1], got {reservoir.share}")
