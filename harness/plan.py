"""From a configuration to work units: pure, so that a resumed run plans the same work."""

from collections.abc import Collection, Container, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from harness.asked import DISTRACTED_ALGORITHMS, TASKS_PER_EVALUATION, digest, evaluated_tasks
from harness.config import AUTO, UNIT_MASK, Config, EvaluateConfig, ReservoirConfig
from supsup_core.inference import FORWARD_ALGORITHMS

# The steps of the automatic checkpoints, and how often they grow tenfold.
_CHECKPOINT_STEPS = (10, 25, 50)

# A block's training state should stay in the last cache: 4 bytes of score, 4 of running
# mean, 2 each of masked sign and gradient for every weight. Measured with two actors on
# LeNet 300-100: 8 tasks are best, at 16 each slows the other down.
_STATE_BYTES_PER_WEIGHT = 12
_BLOCK_STATE_BYTES = 32 * 1024 * 1024
_MAX_BLOCK = 16

# Ranked answers of a unit that are held against the exact ones, which take several times as long.
COMPARED_PER_EVALUATION = 100

# A mask of no more bits goes into one reservoir, a longer one in blocks.
_MAX_WHOLE_BITS = 8192
_BLOCK_BITS = 1024

# What of `evaluate` decides which batches a unit asks about, and what else its answers follow
# from. The rest (masks, distractors, algorithm, objective) its name says in full.
_SAMPLE_KEYS = ("tasks", "batches", "batch_size", "num_images")
_ALGORITHM_KEYS = {
    "binary": ("log_base",),
    "gradient_descent": ("steps", "rate"),
    "frank_wolfe": ("steps",),
}


@dataclass(frozen=True)
class TrainUnit:
    """A block of tasks, trained together.

    Attributes:
        name: of its file in the commit log.
        task_ids: all tasks of the block, in order.
        missing: those without a committed mask; all, unless some were damaged.
    """

    name: str
    task_ids: tuple[int, ...]
    missing: tuple[int, ...]


@dataclass(frozen=True)
class EvaluationUnit:
    """Some tasks' batches, inferred and scored among the first masks of the run.

    Attributes:
        num_tasks: k, the masks of the run in the superposition: tasks 0 to k - 1.
        algorithm: how the task is inferred.
        objective: what is minimised; None for algorithms without one.
        task_ids: the tasks whose batches are asked about.
        num_distractors: untrained masks beside the k.
        variant: short digest of what differs from the run's own evaluations; "" for those.
    """

    num_tasks: int
    algorithm: str
    objective: str | None
    task_ids: tuple[int, ...]
    num_distractors: int = 0
    variant: str = ""

    table = "evaluations"

    @property
    def num_rows(self) -> int:
        """Of the table."""
        return len(self.task_ids)

    @property
    def name(self) -> str:
        """Of its file among the evaluations."""
        parts = [f"k{self.num_tasks:06d}"]
        if self.num_distractors:
            parts.append(f"distractors{self.num_distractors:06d}")
        parts.append(self.algorithm)
        if self.objective:
            parts.append(self.objective)
        parts.append(f"{self.task_ids[0]:06d}")
        if self.variant:
            parts.append(self.variant)
        return "-".join(parts)


@dataclass(frozen=True)
class RecallUnit:
    """The first masks of the run in one reservoir, and some of them recalled from it.

    Attributes:
        num_tasks: k, the masks in the reservoir: tasks 0 to k - 1.
        rule: how a mask is stored.
        cues: what recall begins with.
        task_ids: the tasks whose masks are recalled.
        variant: short digest of whatever else the answers follow from.
    """

    num_tasks: int
    rule: str
    cues: tuple[str, ...]
    task_ids: tuple[int, ...]
    variant: str

    table = "reservoir"

    @property
    def num_rows(self) -> int:
        """Of the table."""
        return len(self.cues)

    @property
    def name(self) -> str:
        """Of its file among the table's."""
        return f"k{self.num_tasks:06d}-{self.rule}-{self.variant}"


WorkUnit = EvaluationUnit | RecallUnit


def automatic_block(num_tasks: int, num_weights: int) -> int:
    """Tasks of a block: as many as fit the caches, and four blocks at least.

    It follows from the work alone, not from the machine: which tasks share a
    block is part of what a mask is.
    """
    fitting = _BLOCK_STATE_BYTES // (_STATE_BYTES_PER_WEIGHT * num_weights)
    quarter = -(-num_tasks // 4)
    return max(1, min(fitting, quarter, _MAX_BLOCK))


def automatic_checkpoints(num_tasks: int) -> list[int]:
    """10, 25, 50, 100, 250, ... below the number of tasks, and that number."""
    found, scale = [], 1
    while _CHECKPOINT_STEPS[0] * scale < num_tasks:
        found += [step * scale for step in _CHECKPOINT_STEPS if step * scale < num_tasks]
        scale *= 10
    return [*found, num_tasks]


def resolve_checkpoints(checkpoints: Any, num_tasks: int) -> list[int]:
    """Checkpoints in order, each once; `auto` is those of num_tasks tasks."""
    if checkpoints == AUTO:
        return automatic_checkpoints(num_tasks)
    return sorted(set(checkpoints))


def resolve(config: Config, *, num_weights: int, mask_bits: int, has_bfloat16: bool) -> Config:
    """Replace every `auto` that changes a result by what it means here.

    Args:
        config: as typed.
        num_weights: of the network.
        mask_bits: of one mask.
        has_bfloat16: whether the training device multiplies bfloat16 matrices.
    """
    train = config.train
    block = automatic_block(config.tasks, num_weights) if train.block == AUTO else train.block
    automatic_dtype = "bfloat16" if has_bfloat16 and config.method != UNIT_MASK else "float32"
    dtype = automatic_dtype if train.dtype == AUTO else train.dtype
    checkpoints = resolve_checkpoints(config.evaluate.checkpoints, config.tasks)
    return replace(
        config,
        train=replace(train, block=block, dtype=dtype),
        evaluate=replace(config.evaluate, checkpoints=checkpoints),
        reservoir=resolve_block(config.reservoir, mask_bits),
    )


def resolve_block(reservoir: ReservoirConfig, mask_bits: int) -> ReservoirConfig:
    """Say how many bits of a mask a reservoir holds together; never more than a mask has."""
    automatic = mask_bits if mask_bits <= _MAX_WHOLE_BITS else _BLOCK_BITS
    wanted = automatic if reservoir.block == AUTO else int(reservoir.block)
    return replace(reservoir, block=min(wanted, mask_bits))


def train_units(num_tasks: int, block: int, committed: Container[int]) -> Iterator[TrainUnit]:
    """The blocks that still miss a mask, in order, each made when it is asked for.

    Tasks may be committed meanwhile, as far as their blocks have been asked for.
    """
    for first in range(0, num_tasks, block):
        ids = tuple(range(first, min(first + block, num_tasks)))
        missing = tuple(i for i in ids if i not in committed)
        if missing:
            yield TrainUnit(f"unit-{first:06d}", ids, missing)


def evaluation_units(
    config: Config, num_tasks: int, own: EvaluateConfig | None = None
) -> list[EvaluationUnit]:
    """All units of one checkpoint.

    Args:
        config: what is asked for, its checkpoints resolved.
        num_tasks: the checkpoint.
        own: what the run itself evaluates; None: the same. A unit that asks for anything else
            has a name of its own.
    """
    evaluate = config.evaluate
    asked = evaluated_tasks(num_tasks, evaluate.tasks)
    groups = [
        tuple(asked[start : start + TASKS_PER_EVALUATION])
        for start in range(0, len(asked), TASKS_PER_EVALUATION)
    ]
    units = [
        EvaluationUnit(num_tasks, algorithm, objective, ids, variant=variant)
        for algorithm in evaluate.algorithms
        for variant in [_variant(evaluate, own or evaluate, algorithm)]
        for objective in _objectives(config, algorithm)
        for ids in groups
    ]
    if evaluate.distractors and num_tasks == max(evaluate.checkpoints):
        units += [
            replace(unit, num_distractors=evaluate.distractors)
            for unit in units
            if unit.algorithm in DISTRACTED_ALGORITHMS
        ]
    return units


def recall_units(config: Config, num_tasks: int) -> list[RecallUnit]:
    """All reservoirs of one checkpoint.

    Args:
        config: what is asked for, its checkpoints resolved.
        num_tasks: the checkpoint.
    """
    reservoir, evaluate = config.reservoir, config.evaluate
    values = {key: getattr(evaluate, key) for key in ("tasks", "batches", "batch_size")}
    values |= {key: getattr(reservoir, key) for key in ("share", "block", "most_steps")}
    values["cues"] = sorted(reservoir.cues)
    asked = tuple(evaluated_tasks(num_tasks, evaluate.tasks))
    return [
        RecallUnit(num_tasks, rule, tuple(reservoir.cues), asked, digest(values))
        for rule in reservoir.rules
    ]


def _objectives(config: Config, algorithm: str) -> list[str] | list[None]:
    return [None] if algorithm in FORWARD_ALGORITHMS else config.evaluate.objectives


def _variant(asked: EvaluateConfig, own: EvaluateConfig, algorithm: str) -> str:
    """Tell an algorithm's other evaluations from the run's own."""
    keys = (*_SAMPLE_KEYS, *_ALGORITHM_KEYS.get(algorithm, ()))
    values = {key: getattr(asked, key) for key in keys}
    if values == {key: getattr(own, key) for key in keys}:
        return ""
    return digest(values)


def num_leading(committed: Container[int]) -> int:
    """How many tasks from 0 on are committed without a gap: the largest checkpoint."""
    return next(k for k in count() if k not in committed)


class Checkpoints:
    """Tells which checkpoints have become ready, each once.

    A checkpoint k is ready when the masks of tasks 0 to k - 1 are committed,
    however many others are.
    """

    def __init__(self, sizes: Collection[int]) -> None:
        self._waiting = sorted(sizes)
        self._prefix = 0

    def ready(self, committed: Container[int]) -> Iterator[int]:
        """Yield the checkpoints that the committed tasks complete."""
        while self._prefix in committed:
            self._prefix += 1
        while self._waiting and self._waiting[0] <= self._prefix:
            yield self._waiting.pop(0)


@dataclass(frozen=True)
class PoolSize:
    """How many actors a pool has, and what one of them reserves.

    Attributes:
        actors: while the other pool may be at work.
        actors_alone: once training is over.
        cpus, gpus: reserved for one actor.
    """

    actors: int
    actors_alone: int
    cpus: float
    gpus: float


def pool_sizes(config: Config, *, cpus: int, gpus: float) -> tuple[PoolSize, PoolSize]:
    """Divide what Ray found between training and evaluation.

    On few CPUs every one trains, and an evaluation actor shares them without a
    reservation; from 8 on, one in eight is kept for evaluation. With GPUs an actor
    takes its share of one, and evaluation keeps one share in eight, at least one.

    Returns:
        The training pool's size and the evaluation pool's.

    Raises:
        ValueError: more actors asked for than Ray would ever start.
    """
    # An actor's share lies on one GPU: two GPUs in shares of 0.4 serve four actors, not five.
    slots = int(gpus) * int(1 / config.actors.gpus + 1e-9) if gpus else cpus
    kept = slots // 8 if not gpus else min(max(1, slots // 8), slots - 1)
    train, evaluate = config.actors.train, config.actors.evaluate
    num_train = max(1, slots - kept) if train == AUTO else int(train)
    num_evaluate = max(1, kept) if evaluate == AUTO else int(evaluate)
    if config.actors.shards > 1:
        num_evaluate = config.actors.shards
    if num_train > slots:
        found = f"{gpus:g} GPUs in shares of {config.actors.gpus}" if gpus else f"{cpus} CPUs"
        raise ValueError(
            f"actors.train must be at most {slots}, for Ray has {found}, got {num_train}: "
            "lower it, or leave it at auto"
        )
    reserves = kept and num_train + num_evaluate <= slots
    share = config.actors.gpus if gpus else 0.0
    return (
        PoolSize(num_train, num_train, cpus=0.0 if gpus else 1.0, gpus=share),
        PoolSize(
            num_evaluate,
            max(num_evaluate, slots) if reserves or not gpus else num_evaluate,
            cpus=1.0 if reserves and not gpus else 0.0,
            gpus=share if reserves else 0.0,
        ),
    )
