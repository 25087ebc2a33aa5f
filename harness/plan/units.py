"""From a configuration to work units: pure, so that a resumed run plans the same work."""

import hashlib
import json
from collections.abc import Collection, Container, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from harness.config.schema import AUTO, Config, EvaluateConfig
from supsup_core.names import FORWARD_ALGORITHMS, RANKED

# Tasks whose batches one evaluation unit infers and scores.
TASKS_PER_EVALUATION = 25

# Ranked answers of a unit that are held against the exact ones, which take several times as long.
COMPARED_PER_EVALUATION = 100

# Algorithms whose cost lets them stand among many distractors.
DISTRACTED_ALGORITHMS = ("one_shot", RANKED)

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
        config: what is asked for, its checkpoints and algorithms resolved.
        num_tasks: the checkpoint.
        own: what the run itself evaluates; None: the same. A unit that asks for anything else
            has a name of its own.

    Raises:
        ValueError: `auto` for the algorithms.
    """
    evaluate = config.evaluate
    if evaluate.algorithms == AUTO:
        raise ValueError("evaluate.algorithms must be resolved to a list of names, got auto")
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
        RecallUnit(num_tasks, rule, tuple(reservoir.cues), asked, _digest(values))
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
    return _digest(values)


def evaluated_tasks(num_tasks: int, at_most: int | None) -> list[int]:
    """Tasks to ask about among the first k: evenly spaced, the first and the last included."""
    if at_most is None or at_most >= num_tasks:
        return list(range(num_tasks))
    if at_most == 1:
        return [num_tasks - 1]
    return [i * (num_tasks - 1) // (at_most - 1) for i in range(at_most)]


def _digest(values: Mapping[str, Any]) -> str:
    """Eight hex digits for what a unit's answers follow from beside what its name says."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:8]


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
