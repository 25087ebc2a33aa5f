"""The configuration: its schema, its checks, and what of it decides a run's results.

The only module that reads Hydra. It converts once, at the door, from what was
typed to plain dataclasses; everything further in takes those.
"""

import difflib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
    ValidationError,
)
from yaml import YAMLError

from harness.datasets import DATASETS
from harness.errors import UserError
from supsup_core.inference import ALGORITHMS
from supsup_core.methods import METHODS
from supsup_core.networks import NETWORKS
from supsup_core.objectives import OBJECTIVES
from supsup_core.tasks import FAMILIES
from supsup_core.training import DECAYS

CONFIG_MODULE = "harness.conf"
AUTO = "auto"
DTYPES = ("float32", "bfloat16")
EXECUTORS = ("ray", "serial")


@dataclass
class TrainConfig:
    """How masks are trained; `train=<name>` picks a recipe of harness/conf/train."""

    name: str = MISSING
    """The recipe's name."""
    steps: int = MISSING
    """Optimiser steps a task."""
    batch_size: int = MISSING
    """Images a step."""
    learning_rate: float = MISSING
    """Of RMSprop, at the first step."""
    smoothing: float = MISSING
    """Of RMSprop's running mean of squared gradients."""
    decay: str = MISSING
    """none, or linear: the learning rate falls evenly towards 0."""
    dtype: str = AUTO
    """Of the matrix products; auto takes bfloat16 where the processor multiplies it."""
    block: int | str = AUTO
    """Tasks trained together in one work unit; auto follows the network's size."""


@dataclass
class EvaluateConfig:
    """What is measured, and on how much."""

    checkpoints: Any = AUTO
    """Numbers of masks in the superposition; auto: 10, 25, 50, 100, 250, ... and all."""
    algorithms: list[str] = field(default_factory=lambda: [*ALGORITHMS])
    """Ways to infer the task."""
    objectives: list[str] = field(default_factory=lambda: [*OBJECTIVES])
    """What the gradient's algorithms minimise: H entropy, G superfluous neurons."""
    tasks: int | None = 50
    """Tasks evaluated at a checkpoint, evenly spaced; null: all of them."""
    batches: int | None = 4
    """Test batches a task; null: the whole test set."""
    batch_size: int = 128
    """Images of a test batch, scored with the one task inferred for it."""
    num_images: int = 1
    """Images of the batch that the inference sees."""


@dataclass
class ActorsConfig:
    """Ray's share of the work; nothing here changes a result."""

    train: int | str = AUTO
    """Training actors; auto: as many as Ray has CPUs or GPU shares for."""
    evaluate: int | str = AUTO
    """Evaluation actors while training goes on."""
    gpus: float = 0.25
    """Share of a GPU an actor takes, where there are GPUs."""


@dataclass
class Config:
    """Everything a run can be told."""

    tasks: int = 32
    """Number of tasks."""
    seed: int = 0
    """Of every random draw."""
    data: str = "mnist5k"
    """Data set."""
    family: str = "permuted"
    """What tells tasks apart."""
    network: str = "lenet_300_100"
    """The fixed random network; mlp takes any `hidden`."""
    hidden: list[int] | None = None
    """Widths of the hidden layers of network=mlp."""
    outputs: int = 500
    """Output units: a class each, and the rest superfluous."""
    method: str = "threshold"
    """How scores become masks."""
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    actors: ActorsConfig = field(default_factory=ActorsConfig)
    executor: str = "ray"
    """ray, or serial: everything in this process."""
    run_dir: str | None = None
    """Where everything goes; null: runs/<name of the run>."""
    data_dir: str | None = None
    """Where the data set's files lie, if not in the cache folder."""
    download: bool = True
    """Whether missing data may be fetched, with a line that says so; checked by sha256."""
    quiet: bool = False
    """Log lines instead of progress bars."""


# What may differ between a run and its continuation without changing a result.
_FREE_KEYS = ("executor", "actors", "run_dir", "data_dir", "download", "quiet")

ConfigStore.instance().store(name="schema", node=Config)


def compose_command_line(arguments: Sequence[str]) -> DictConfig | None:
    """Compose what was typed, refusing what Hydra would answer with a page of its own.

    Returns:
        The configuration to run; None where Hydra is asked for something else: to
        print, to sweep, or to read its files elsewhere.

    Raises:
        UserError: an unknown key or recipe, or a value of another type.
    """
    parsed, unknown = get_args_parser().parse_known_args(list(arguments))
    if unknown:
        raise UserError(f"options must be key=value or those of --hydra-help, got {unknown[0]}")
    if parsed.multirun or parsed.config_dir or parsed.config_path or parsed.config_name:
        return None  # a sweep's values are not yet single ones
    try:
        with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
            composed = compose("config", overrides=parsed.overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error)) from error
    except ValueError as error:  # "=3", "train=3"
        typed = " ".join(parsed.overrides)
        raise UserError(
            f"options must be key=value, and train the name of a recipe, got {typed}: "
            "--cfg job lists all keys"
        ) from error
    asked = (parsed.help, parsed.hydra_help, parsed.cfg, parsed.info, parsed.shell_completion)
    return None if any(asked) or parsed.experimental_rerun else composed


def _explain(error: Exception) -> str:
    """Say in one line what Hydra says in several."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, MissingConfigException) and cause.options:
        group, _, name = str(cause.missing_cfg_file).rpartition("/")
        return _must_be_one_of(group, name, cause.options)
    if isinstance(cause, OverrideParseException):
        return (
            f"options must be key=value, got {cause.override!r}: --cfg job lists all keys; "
            "a value with special characters needs quotes inside quotes, \"key='value'\""
        )
    key = getattr(cause, "full_key", None)
    if key and isinstance(cause, ConfigKeyError | ConfigAttributeError):
        return _unknown_key(str(key))
    if key and isinstance(cause, ValidationError):
        key, value = str(key).partition("[")[0], getattr(cause, "value", None)
        got = "null" if value is None else repr(value)
        return f"{key} must be {_expected(key)}, got {got}: --cfg job shows its default"
    first = str(cause).strip().splitlines()[0]
    return f"{key}: {first}" if key else f"{first} (--cfg job lists all keys)"


def _unknown_key(key: str) -> str:
    groups = [entry.name for entry in fields(Config) if is_dataclass(entry.type)]
    near = difflib.get_close_matches(key, [*_keys(Config()), *groups], n=1)
    hint = f"did you mean {near[0]}?" if near else "--cfg job lists all keys"
    return f"unknown key {key}: {hint}"


_KINDS: dict[Any, str] = {
    int: "a whole number",
    int | None: "a whole number or null",
    int | str: "a whole number or auto",
    float: "a number",
    bool: "true or false",
    list[int] | None: "a list of whole numbers such as [300,100]",
    list[str]: "a list of names such as [H,G]",
}


def _expected(key: str) -> str:
    """What values a key of the schema takes."""
    kind: Any = Config
    for part in key.split("."):
        kind = {entry.name: entry.type for entry in fields(kind)}.get(part)
        if not is_dataclass(kind):
            return _KINDS.get(kind, "a text")
    return f"set key by key, such as {key}.{fields(kind)[0].name}=..."


def _keys(config: Any, prefix: str = "") -> list[str]:
    """Every leaf's dotted name."""
    keys = []
    for entry in fields(config):
        value, name = getattr(config, entry.name), f"{prefix}{entry.name}"
        keys += _keys(value, f"{name}.") if is_dataclass(value) else [name]
    return keys


def _leaf(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = getattr(config, part)
    return config


def from_hydra(composed: DictConfig) -> Config:
    """Convert what Hydra composed and check every value.

    Raises:
        UserError: a value that no run can have.
    """
    try:
        config = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:  # a value taken away, or an interpolation
        raise UserError(_explain(error)) from error
    assert isinstance(config, Config)
    _refuse_added_keys(config)
    check(config)
    return config


def _refuse_added_keys(config: Any, prefix: str = "") -> None:
    """Refuse +key=value, which would be accepted and then do nothing."""
    known = {entry.name for entry in fields(config)}
    for name, value in vars(config).items():
        if name not in known:
            raise UserError(_unknown_key(f"{prefix}{name}"))
        if is_dataclass(value):
            _refuse_added_keys(value, f"{prefix}{name}.")


def check(config: Config) -> None:
    """Check every value that can be checked without data or machine.

    Raises:
        UserError: naming the key, what was expected and what came.
    """
    for key, least in _LEAST.items():
        _at_least(key, _leaf(config, key), least)
    for key in ("evaluate.tasks", "evaluate.batches"):
        if (value := _leaf(config, key)) is not None:
            _at_least(key, value, 1, instead="null")
    for key, known in _KNOWN.items():
        _one_of(key, _leaf(config, key), known)
    if config.train.dtype != AUTO:
        _one_of("train.dtype", config.train.dtype, DTYPES)
    for key in ("train.block", "actors.train", "actors.evaluate"):
        if (value := _leaf(config, key)) != AUTO:
            _at_least(key, value, 1, instead=AUTO)
    for key, known in (("algorithms", tuple(ALGORITHMS)), ("objectives", tuple(OBJECTIVES))):
        for value in _leaf(config.evaluate, key):
            _one_of(f"evaluate.{key}", value, known)
    if not 0 < config.train.learning_rate < math.inf:
        raise UserError(f"train.learning_rate must be > 0, got {config.train.learning_rate}")
    if not 0 <= config.train.smoothing < 1:
        raise UserError(f"train.smoothing must be in [0, 1), got {config.train.smoothing}")
    if not 0 < config.actors.gpus <= 1:
        raise UserError(f"actors.gpus must be in (0, 1], got {config.actors.gpus}")
    _check_network(config)
    _check_checkpoints(config)
    if config.evaluate.num_images > config.evaluate.batch_size:
        raise UserError(
            f"evaluate.num_images must be at most evaluate.batch_size = "
            f"{config.evaluate.batch_size}, got {config.evaluate.num_images}"
        )
    if config.run_dir is not None and "://" in config.run_dir:
        raise UserError(f"run_dir must be a local path, got {config.run_dir}: give a folder")


_LEAST = {
    "tasks": 1,
    "seed": 0,
    "outputs": 1,
    "train.steps": 1,
    "train.batch_size": 1,
    "evaluate.batch_size": 1,
    "evaluate.num_images": 1,
}
_KNOWN = {
    "data": DATASETS,
    "family": FAMILIES,
    "network": NETWORKS,
    "method": tuple(METHODS),
    "executor": EXECUTORS,
    "train.decay": DECAYS,
}


def _at_least(key: str, value: Any, least: int, instead: str | None = None) -> None:
    if not isinstance(value, int) or value < least:
        other = f"{instead} or " if instead else ""
        raise UserError(
            f"{key} must be {other}a whole number >= {least}, got {value}: "
            f"try {key}={instead or least}"
        )


def _one_of(key: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise UserError(_must_be_one_of(key, value, known))


def _must_be_one_of(key: str, value: Any, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(value), known, n=1)
    hint = f": did you mean {key}={near[0]}?" if near else f": for example {key}={known[0]}"
    return f"{key} must be one of {', '.join(known)}, got {value!r}{hint}"


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


def run_name(config: Config) -> str:
    """A folder name that tells runs apart by what people vary most."""
    parts = [config.data, config.family, str(config.tasks)]
    if config.network == "mlp":
        parts.append("mlp_" + "_".join(map(str, config.hidden or [])))
    elif config.network != Config().network:
        parts.append(config.network)
    if config.train.name != "paper":
        parts.append(config.train.name)
    if config.seed:
        parts.append(f"seed{config.seed}")
    return "-".join(parts)


def run_directory(config: Config) -> Path:
    """Where the run lies: an absolute path, whatever the current folder is later."""
    given = config.run_dir or f"runs/{run_name(config)}"
    return Path(given).expanduser().absolute()


def differences(stored: Config, wanted: Config) -> list[str]:
    """Name the keys in which two configurations would give other results.

    A wanted `auto` agrees with whatever it was resolved to when the run began.
    """
    there = result_values(stored)
    return [
        f"{key} is {there[key]} there, {value} here"
        for key, value in result_values(wanted).items()
        if value not in (AUTO, there[key])
    ]


def result_values(config: Config) -> dict[str, Any]:
    """What of a configuration changes a result, by dotted key."""
    found = {key: _leaf(config, key) for key in _keys(config)}
    checkpoints = config.evaluate.checkpoints
    if isinstance(checkpoints, list):  # kept sorted, however they were typed
        found["evaluate.checkpoints"] = sorted(set(checkpoints))
    return {key: value for key, value in found.items() if key.split(".")[0] not in _FREE_KEYS}


def to_yaml(config: Config) -> str:
    """The configuration as `config.yaml` keeps it."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def from_yaml(path: Path) -> Config:
    """Read a run's configuration back.

    Raises:
        UserError: the file is not one.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(path))
        config = OmegaConf.to_object(merged)
        assert isinstance(config, Config)
        check(config)
    except (OSError, YAMLError, OmegaConfBaseException, ValueError, UserError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{path} is not a run's configuration: {reason}: put it back, or choose another run_dir"
        ) from error
    return config


def main_guard(job: Any) -> None:
    """Run a job's command line: user errors are one line on stderr and exit code 2.

    Args:
        job: decorated by hydra.main. Given a configuration, it runs without Hydra, which
            would put a traceback around a user error and leave a log of its own.
    """
    try:
        composed = compose_command_line(sys.argv[1:])
        job() if composed is None else job(composed)
    except UserError as error:
        print("error:", " ".join(str(error).splitlines()), file=sys.stderr)
        sys.exit(2)
