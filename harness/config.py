"""The configuration: its schema, its checks, and what of it decides a run's results.

Plain dataclasses, made once at the door by harness/commandline.py and passed inward.
"""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from io import BytesIO
from typing import Any, TypeVar

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from harness.datasets import DATASETS
from harness.errors import UserError
from harness.storage.places import Place, check_url, is_url, place
from supsup_core.bit_inference import ALGORITHMS
from supsup_core.families import FAMILIES
from supsup_core.inference import FORWARD_ALGORITHMS, GRADIENT_ALGORITHMS
from supsup_core.methods import METHODS
from supsup_core.networks import NETWORKS
from supsup_core.objectives import OBJECTIVES
from supsup_core.optimizers import OPTIMIZERS
from supsup_core.reservoirs.rules import RULES
from supsup_core.shards import SHARDED_ALGORITHMS
from supsup_core.training import DECAYS

AUTO = "auto"
DTYPES = ("float32", "bfloat16")
EXECUTORS = ("ray", "serial")
CUES = ("flipped", "erased", "data")
UNIT_MASK = "unit_mask"  # the method whose masks are over units; the others' are over weights

# Descent takes many gradients, and the first layer's objectives would double all that is
# evaluated: both only on demand.
DEFAULT_ALGORITHMS = ("one_shot", "one_shot_ranked", "binary", "min_entropy", "max_logit")
DEFAULT_OBJECTIVES = ("H", "G")
# What reads the outputs without a class.
SUPERFLUOUS_OBJECTIVES = ("G", "G_first_layer")


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
    """At the first step."""
    smoothing: float = MISSING
    """Of the running mean of squared gradients, which rmsprop and adam have."""
    decay: str = MISSING
    """none, or linear: the learning rate falls evenly towards 0."""
    dtype: str = AUTO
    """Of the matrix products; auto takes bfloat16 where AMX or a GPU multiplies it."""
    block: int | str = AUTO
    """Tasks trained together in one work unit; auto follows the network's size."""
    temperature: float = 1.0
    """Logits are divided by it in the loss; above 1 the softmax is softer."""
    optimizer: str = "rmsprop"
    """Of the scores: rmsprop, adam or sgd."""
    momentum: float = 0.0
    """Of the running mean (adam) or sum (sgd) of gradients."""


@dataclass
class EvaluateConfig:
    """What is measured, and on how much."""

    checkpoints: Any = AUTO
    """Numbers of masks in the superposition; auto: 10, 25, 50, 100, 250, ... and all."""
    algorithms: list[str] = field(default_factory=lambda: [*DEFAULT_ALGORITHMS])
    """Ways to infer the task; gradient_descent and frank_wolfe, which are costly, on demand."""
    objectives: list[str] = field(default_factory=lambda: [*DEFAULT_OBJECTIVES])
    """What the gradient's algorithms minimise: H entropy, G superfluous neurons; H_first_layer
    and G_first_layer: the same by the first layer's masks alone."""
    tasks: int | None = 50
    """Tasks evaluated at a checkpoint, evenly spaced; null: all of them."""
    batches: int | None = 4
    """Test batches a task; null: the whole test set."""
    batch_size: int = 128
    """Images of a test batch, scored with the one task inferred for it."""
    num_images: int = 1
    """Images of the batch that the inference sees."""
    distractors: int = 0
    """Untrained masks, drawn from the densities of the trained ones, that the last checkpoint
    gets beside them in a second evaluation, by one_shot and one_shot_ranked."""
    log_base: int = 2
    """Into how many parts binary divides the candidates at each gradient."""
    steps: int = 10
    """Gradients of gradient_descent and frank_wolfe."""
    rate: float = 0.3
    """Learning rate of gradient_descent."""
    reservoir: bool = False
    """Whether masks are also stored in reservoirs and recalled from them."""


@dataclass
class ReservoirConfig:
    """Memories of constant size that masks are recalled from, where evaluate.reservoir is true."""

    rules: list[str] = field(default_factory=lambda: ["projection"])
    """How a mask is stored."""
    cues: list[str] = field(default_factory=lambda: [*CUES])
    """What recall begins with: flipped or erased, a mask some of whose bits are turned around or
    unknown; data, a batch of images without labels and nothing of the mask."""
    share: float = 0.1
    """Of the bits of a cue that are flipped or erased."""
    block: int | str = AUTO
    """Bits held together; auto: a whole mask if it has no more than 8192, else 1024 at a time."""
    most_steps: int = 50
    """Sweeps over all bits after which a recall that has not settled is given up."""


@dataclass
class ActorsConfig:
    """Ray's share of the work; nothing here changes a result."""

    train: int | str = AUTO
    """Training actors; auto: as many as Ray has CPUs or GPU shares for."""
    evaluate: int | str = AUTO
    """Evaluation actors while training goes on."""
    gpus: float = 0.25
    """Share of a GPU an actor takes, where there are GPUs."""
    shards: int = 1
    """Above 1: so many evaluation actors, whatever `evaluate` says, each with a part of the
    masks, for masks that do not fit one; by one_shot and one_shot_ranked alone."""


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
    """How scores become masks over weights; or unit_mask, for masks over hidden units."""
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    reservoir: ReservoirConfig = field(default_factory=ReservoirConfig)
    actors: ActorsConfig = field(default_factory=ActorsConfig)
    executor: str = "ray"
    """ray, or serial: everything in this process."""
    run_dir: str | None = None
    """Where everything goes: a folder, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER; null:
    runs/<name of the run>."""
    data_dir: str | None = None
    """Where the data set's files lie, if not in the cache folder."""
    download: bool = True
    """Whether missing data may be fetched, with a line that says so; checked by sha256."""
    quiet: bool = False
    """Log lines instead of progress bars."""


AnyConfig = TypeVar("AnyConfig", bound=Config)

# What may differ between a run and its continuation without changing a result.
FREE_KEYS = ("executor", "actors", "run_dir", "data_dir", "download", "quiet")


def keys(config: Any, prefix: str = "") -> list[str]:
    """Every leaf's dotted name."""
    found = []
    for entry in fields(config):
        value, name = getattr(config, entry.name), f"{prefix}{entry.name}"
        found += keys(value, f"{name}.") if is_dataclass(value) else [name]
    return found


def leaf(config: Any, key: str) -> Any:
    """The value of a dotted name."""
    for part in key.split("."):
        config = getattr(config, part)
    return config


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


def run_name(config: Config) -> str:
    """A folder name that tells runs apart by what people vary most."""
    parts = [config.data, config.family, str(config.tasks)]
    if config.network == "mlp":
        parts.append("mlp_" + "_".join(map(str, config.hidden or [])))
    elif config.network != Config().network:
        parts.append(config.network)
    if config.method != Config().method:
        parts.append(config.method)
    if config.train.name != "paper":
        parts.append(config.train.name)
    if config.seed:
        parts.append(f"seed{config.seed}")
    return "-".join(parts)


def run_directory(config: Config) -> Place:
    """Where the run lies; see harness.storage.places.place."""
    return place(config.run_dir or f"runs/{run_name(config)}")


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
    found = {key: leaf(config, key) for key in keys(config)}
    checkpoints = config.evaluate.checkpoints
    if isinstance(checkpoints, list):  # kept sorted, however they were typed
        found["evaluate.checkpoints"] = sorted(set(checkpoints))
    return {key: value for key, value in found.items() if key.split(".")[0] not in FREE_KEYS}


def to_yaml(config: Config) -> str:
    """The configuration as `config.yaml` keeps it."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def from_yaml(path: Place) -> Config:
    """Read a run's configuration back; see job_from_yaml."""
    return job_from_yaml(path, Config)


def job_from_yaml(path: Place, schema: type[AnyConfig]) -> AnyConfig:
    """Read back the configuration of a job.

    Args:
        path: of the file.
        schema: of the job.

    Raises:
        UserError: the file is not one.
    """
    try:
        merged = OmegaConf.merge(
            OmegaConf.structured(schema), OmegaConf.load(BytesIO(path.read_bytes()))
        )
        config = OmegaConf.to_object(merged)
        assert isinstance(config, schema)
        check(config)
    except (OSError, YAMLError, OmegaConfBaseException, ValueError, UserError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{path} is not a run's configuration: {reason}: put it back, or choose another run_dir"
        ) from error
    return config
