"""The schema of a run's configuration: plain dataclasses, made once and passed inward."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

from omegaconf import MISSING

AUTO = "auto"

DTYPES = ("float32", "bfloat16")

EXECUTORS = ("ray", "serial")

CUES = ("flipped", "erased", "data")

# What is named, and the key of its options.
OPTION_KEYS = {
    "data": "data_options",
    "family": "family_options",
    "network": "network_options",
    "method": "method_options",
}

# What `evaluate.algorithms=auto` stands for, where the engine has them. Descent takes many
# gradients, and the objectives of the first layer would double all that is evaluated: both only
# on demand.
DEFAULT_ALGORITHMS = ("one_shot", "one_shot_ranked", "binary", "min_entropy", "max_logit")

DEFAULT_OBJECTIVES = ("H", "G")


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
    weight_decay: float = 0.0
    """L2 decay of the scores: each gradient gets weight_decay * score added."""


@dataclass
class EvaluateConfig:
    """What is measured, and on how much."""

    checkpoints: Any = AUTO
    """Numbers of masks in the superposition; auto: 10, 25, 50, 100, 250, ... and all."""
    algorithms: Any = AUTO
    """Ways to infer the task; auto: those that the network and the masks allow, without
    gradient_descent and frank_wolfe, which are costly."""
    objectives: list[str] = field(default_factory=lambda: [*DEFAULT_OBJECTIVES])
    """What the gradient's algorithms minimise: H entropy, G superfluous neurons; H_first_layer
    and G_first_layer: the same by the first layer's masks alone."""
    tasks: int | None = 50
    """Tasks evaluated at a checkpoint, evenly spaced; null: all of them."""
    batches: int | None = 4
    """Test batches a task; null: the whole test set."""
    batch_size: int = 128
    """Images of a test batch, scored with the one task inferred for it."""
    num_images: int | str = AUTO
    """Images of the batch that the inference sees; auto: 1, or the whole batch where the network
    normalises over it."""
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
    data_options: dict[str, Any] = field(default_factory=dict)
    """Options of the data set."""
    family: str = "permuted"
    """What tells tasks apart."""
    family_options: dict[str, Any] = field(default_factory=dict)
    """Options of the family."""
    network: str = "lenet_300_100"
    """The fixed random network; units: its masks are over hidden units instead of weights."""
    network_options: dict[str, Any] = field(default_factory=dict)
    """Options of the network, such as hidden: [300, 300], the widths of mlp and units."""
    outputs: int = 500
    """Output units: a class each, and the rest superfluous."""
    method: str = "threshold"
    """How scores become masks."""
    method_options: dict[str, Any] = field(default_factory=dict)
    """Options of the method, such as density: 0.3 for edge_popup."""
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
    """Every leaf's dotted name; an option that is given is a leaf."""
    found = []
    for entry in fields(config):
        value, name = getattr(config, entry.name), f"{prefix}{entry.name}"
        if is_dataclass(value):
            found += keys(value, f"{name}.")
        elif name in OPTION_KEYS.values():
            found += [f"{name}.{option}" for option in value]
        else:
            found.append(name)
    return found


def leaf(config: Any, key: str) -> Any:
    """The value of a dotted name.

    Raises:
        KeyError: an option that is not given.
    """
    for part in key.split("."):
        config = config[part] if isinstance(config, Mapping) else getattr(config, part)
    return config
