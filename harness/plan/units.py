"""Cut the work of a configuration into work units.

The plan depends on the configuration alone, so a resumed run plans the same work.
"""

import hashlib
import json
from collections.abc import Collection, Container, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from harness.config.schema import AUTO, Config, EvaluateConfig
from supsup_core.names import FORWARD_ALGORITHMS, RANKED

# Number of tasks whose batches one evaluation unit infers and scores.
TASKS_PER_EVALUATION = 25

# Number of answers of one_shot_ranked per unit that are compared with the exact answers. An exact
# answer takes several times as long, so not all answers are compared.
COMPARED_PER_EVALUATION = 100

# Algorithms that are fast enough to be evaluated among many distractors.
DISTRACTED_ALGORITHMS = ("one_shot", RANKED)

# Keys of `evaluate` that decide the batches of a unit (_SAMPLE_KEYS), and the options of an
# algorithm that change its answers (_ALGORITHM_KEYS). The other causes of an answer (masks,
# distractors, algorithm, objective) are in the unit's name.
_SAMPLE_KEYS = ("tasks", "batches", "batch_size", "num_images")

_ALGORITHM_KEYS = {
    "binary": ("log_base",),
    "gradient_descent": ("steps", "rate"),
    "frank_wolfe": ("steps",),
}


@dataclass(frozen=True)
class TrainUnit:
    """A block of tasks that train together.

    Attributes:
        name: name of the unit's file in the log.
        task_ids: all tasks of the block, in order.
        missing: tasks of the block without a committed mask: all tasks, unless the block trains
            again because some of its masks were damaged.
    """

    name: str
    task_ids: tuple[int, ...]
    missing: tuple[int, ...]


@dataclass(frozen=True)
class EvaluationUnit:
    """The evaluation of some tasks among the first k masks of a run.

    Attributes:
        num_tasks: k. The masks of tasks 0 to k - 1 are in the superposition.
        algorithm: name of the algorithm that infers the task.
        objective: objective that the algorithm minimises; None if the algorithm has no objective.
        task_ids: tasks whose test batches are inferred and scored.
        num_distractors: number of untrained masks in addition to the k masks.
        variant: short digest of the options if they differ from the run's own evaluations; "" if
            they do not differ.
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
        """Number of rows that the unit adds to the table: one per task."""
        return len(self.task_ids)

    @property
    def name(self) -> str:
        """Name of the unit's file in the table, without .parquet."""
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
    """The recall of some masks from a reservoir with the first k masks of a run.

    Attributes:
        num_tasks: k. The masks of tasks 0 to k - 1 are in the reservoir.
        rule: name of the rule that stores the masks.
        cues: kinds of cues that recall starts from: "flipped", "erased", "data".
        task_ids: tasks whose masks are recalled.
        variant: short digest of all other options that change the answers.
    """

    num_tasks: int
    rule: str
    cues: tuple[str, ...]
    task_ids: tuple[int, ...]
    variant: str

    table = "reservoir"

    @property
    def num_rows(self) -> int:
        """Number of rows that the unit adds to the table: one per kind of cue."""
        return len(self.cues)

    @property
    def name(self) -> str:
        """Name of the unit's file in the table, without .parquet."""
        return f"k{self.num_tasks:06d}-{self.rule}-{self.variant}"


WorkUnit = EvaluationUnit | RecallUnit


def train_units(num_tasks: int, block: int, committed: Container[int]) -> Iterator[TrainUnit]:
    """Yield the blocks that miss a mask, in order.

    During the iteration, tasks of blocks that were already yielded may be added to `committed`.

    Args:
        num_tasks: number of tasks of the run.
        block: number of tasks per block; the last block may be smaller.
        committed: numbers of the tasks that have a committed mask.
    """
    for first in range(0, num_tasks, block):
        ids = tuple(range(first, min(first + block, num_tasks)))
        missing = tuple(i for i in ids if i not in committed)
        if missing:
            yield TrainUnit(f"unit-{first:06d}", ids, missing)


def evaluation_units(
    config: Config, num_tasks: int, own: EvaluateConfig | None = None
) -> list[EvaluationUnit]:
    """Plan all evaluation units of one checkpoint.

    Args:
        config: the requested configuration, with resolved checkpoints and algorithms.
        num_tasks: k, the checkpoint.
        own: evaluation options of the run itself; None if they equal the requested options. A unit
            with other options gets another name, so its file does not replace the run's own file.

    Raises:
        ValueError: the algorithms are `auto`.
    """
    evaluate = config.evaluate
    if evaluate.algorithms == AUTO:
        raise ValueError(
            "evaluate.algorithms must be resolved to a list of names, got auto: call resolve first"
        )
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
    """Plan all recall units of one checkpoint: one unit per rule.

    Args:
        config: the requested configuration, with `auto` resolved.
        num_tasks: k, the checkpoint.
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
    """Make the variant of a unit: "" if the options equal the run's own, otherwise a digest."""
    keys = (*_SAMPLE_KEYS, *_ALGORITHM_KEYS.get(algorithm, ()))
    values = {key: getattr(asked, key) for key in keys}
    if values == {key: getattr(own, key) for key in keys}:
        return ""
    return _digest(values)


def evaluated_tasks(num_tasks: int, at_most: int | None) -> list[int]:
    """Choose the tasks to evaluate among the first k tasks.

    The tasks are evenly spaced, and include the first and the last task.

    Args:
        num_tasks: k.
        at_most: largest number of tasks; 1 chooses the last task; None chooses all tasks.
    """
    if at_most is None or at_most >= num_tasks:
        return list(range(num_tasks))
    if at_most == 1:
        return [num_tasks - 1]
    return [i * (num_tasks - 1) // (at_most - 1) for i in range(at_most)]


def _digest(values: Mapping[str, Any]) -> str:
    """Hash options into eight hex digits, for the name of a unit."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:8]


def num_leading(committed: Container[int]) -> int:
    """Count the committed tasks 0, 1, 2, ... before the first gap: the largest possible k."""
    return next(k for k in count() if k not in committed)


class Checkpoints:
    """The checkpoints that are not ready yet.

    A checkpoint k is ready when the masks of tasks 0 to k - 1 are committed. Other committed masks
    do not matter.

    Args:
        sizes: k of each checkpoint, in any order.
    """

    def __init__(self, sizes: Collection[int]) -> None:
        self._waiting = sorted(sizes)
        self._prefix = 0

    def ready(self, committed: Container[int]) -> Iterator[int]:
        """Yield each checkpoint that has become ready since the last call, in order."""
        while self._prefix in committed:
            self._prefix += 1
        while self._waiting and self._waiting[0] <= self._prefix:
            yield self._waiting.pop(0)
