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

# Options of an algorithm that change its answers.
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
    def inferred_by(self) -> str:
        """Algorithm and objective, for the screen."""
        return f"{self.algorithm} {self.objective}" if self.objective else self.algorithm

    @property
    def way(self) -> str:
        """The way to infer, for the screen: means over units with one way make sense."""
        beside = f" + {self.num_distractors} untrained" if self.num_distractors else ""
        return self.inferred_by + beside

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
        cue: kind of cue that recall starts from: "flipped", "erased" or "data".
        task_ids: tasks whose masks are recalled.
        variant: short digest of all other options that change the answers.
    """

    num_tasks: int
    rule: str
    cue: str
    task_ids: tuple[int, ...]
    variant: str

    table = "reservoir"
    num_rows = 1

    @property
    def name(self) -> str:
        """Name of the unit's file in the table, without .parquet."""
        return f"k{self.num_tasks:06d}-{self.rule}-{self.cue}-{self.variant}"

    @property
    def way(self) -> str:
        """The way to recall, for the screen."""
        return f"{self.rule} {self.cue}"


@dataclass(frozen=True)
class ReservoirUnit:
    """Recalls from one reservoir, which a worker fills once for all of them.

    Attributes:
        recalls: units with the same masks, rule and tasks, and with different cues; at least one.
    """

    recalls: tuple[RecallUnit, ...]

    @property
    def name(self) -> str:
        """The unit's name in log lines."""
        return self.recalls[0].name


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
        for variant in [_variant(evaluate, own or evaluate, algorithm, num_tasks)]
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


def evaluation_settings(evaluate: EvaluateConfig, algorithm: str, num_tasks: int) -> dict[str, Any]:
    """Return the settings that can change the rows of an evaluation unit, by column name.

    The other causes of a row (masks, distractors, algorithm, objective) are in the unit's name.
    Each setting is a column of the table `evaluations`, so evaluations with different settings can
    be told apart. A setting that the algorithm does not read is None.

    Args:
        evaluate: evaluation options, with num_images resolved.
        algorithm: name of the algorithm that infers the task.
        num_tasks: k, the checkpoint.
    """
    read = _ALGORITHM_KEYS.get(algorithm, ())
    options = ("log_base", "steps", "rate")
    return {
        "num_images": evaluate.num_images,
        "batch_size": evaluate.batch_size,
        **{key: getattr(evaluate, key) if key in read else None for key in options},
        "tasks_asked": len(evaluated_tasks(num_tasks, evaluate.tasks)),
        "batches": evaluate.batches,
    }


def recall_settings(config: Config, cue: str, num_tasks: int) -> dict[str, Any]:
    """Return the settings that can change the row of a recall unit, by column name.

    Each setting is a column of the table `reservoir`; see evaluation_settings.

    Args:
        config: the requested configuration, with `auto` resolved.
        cue: kind of cue; cues from data do not read `reservoir.share`.
        num_tasks: k, the checkpoint.
    """
    reservoir, evaluate = config.reservoir, config.evaluate
    return {
        "block": reservoir.block,
        "share": None if cue == "data" else reservoir.share,
        "most_steps": reservoir.most_steps,
        "batch_size": evaluate.batch_size,
        "batches": evaluate.batches,
        "num_cues": len(evaluated_tasks(num_tasks, evaluate.tasks)),
    }


def recall_units(config: Config, num_tasks: int) -> list[RecallUnit]:
    """Plan all recall units of one checkpoint: one unit per rule and kind of cue.

    Args:
        config: the requested configuration, with `auto` resolved.
        num_tasks: k, the checkpoint.
    """
    asked = tuple(evaluated_tasks(num_tasks, config.evaluate.tasks))
    return [
        RecallUnit(num_tasks, rule, cue, asked, _digest(recall_settings(config, cue, num_tasks)))
        for rule in config.reservoir.rules
        for cue in config.reservoir.cues
    ]


def _objectives(config: Config, algorithm: str) -> list[str] | list[None]:
    return [None] if algorithm in FORWARD_ALGORITHMS else config.evaluate.objectives


def _variant(asked: EvaluateConfig, own: EvaluateConfig, algorithm: str, num_tasks: int) -> str:
    """Make the variant of a unit: "" if the options equal the run's own, otherwise a digest."""
    settings = evaluation_settings(asked, algorithm, num_tasks)
    return "" if settings == evaluation_settings(own, algorithm, num_tasks) else _digest(settings)


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
