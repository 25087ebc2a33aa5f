"""Divide the work of a configuration into work units.

The units depend on the configuration alone, so a resumed run has the same units.
"""

import hashlib
import json
from collections.abc import Collection, Container, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, chain, count, islice
from typing import Any

from harness.config.names import AUTO, DESCENT
from harness.config.schema import Config, EvaluateConfig
from supsup_core.names import GIVEN, RANKED, WITHOUT_OBJECTIVE

# Number of tasks of one evaluation unit.
TASKS_PER_EVALUATION = 25

# In each unit of one_shot_ranked, this number of answers is compared with exact answers. An exact
# answer takes several times as long, so not all answers are compared.
COMPARED_PER_EVALUATION = 100

# Algorithms that are fast enough to be evaluated among many distractors.
DISTRACTED_ALGORITHMS = ("one_shot", RANKED)

# For each algorithm, the options that change its answers.
_ALGORITHM_KEYS = {
    "binary": ("log_base",),
    "gradient_descent": ("steps", "rate"),
    "frank_wolfe": ("steps",),
}


@dataclass(frozen=True)
class TrainUnit:
    """One or more blocks of tasks. The tasks of a block train together.

    Blocks of one unit do not affect each other's masks. A GPU trains them at the same time.

    Attributes:
        name: name of the unit's file in the log.
        task_ids: all tasks of the blocks, in order.
        missing: tasks of the blocks that have no committed mask. Usually, these are all tasks. If a
            block is trained again, these are the tasks whose masks were damaged, or whose training
            failed. Empty if later tasks need the data of the block, and its masks exist.
        sizes: number of tasks of each block; empty if there is one block.
    """

    name: str
    task_ids: tuple[int, ...]
    missing: tuple[int, ...]
    sizes: tuple[int, ...] = ()

    @property
    def blocks(self) -> list[tuple[int, ...]]:
        """The tasks of each block, in order."""
        ends = list(accumulate(self.sizes or (len(self.task_ids),)))
        return [self.task_ids[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def only(self, missing: tuple[int, ...]) -> "TrainUnit":
        """Return a copy of the unit with other missing tasks.

        The copy has only those blocks of the unit that contain a task of `missing`.
        """
        kept = [block for block in self.blocks if not set(block).isdisjoint(missing)]
        return TrainUnit(self.name, tuple(chain(*kept)), missing, tuple(map(len, kept)))


@dataclass(frozen=True)
class StreamUnit:
    """The part of a stream from the allocation of one mask to the allocation of the next mask.

    The parts of a stream follow one another. Each needs the masks of all parts before it.

    Attributes:
        mask: number of the mask that is allocated at the start of the part.
        first: number of the batch at which the mask is allocated.
    """

    mask: int
    first: int

    table = "allocation"
    details = ()

    @property
    def name(self) -> str:
        """Name of the unit's files in the log and in the table `allocation`."""
        return f"mask-{self.mask:06d}"

    @property
    def task_ids(self) -> tuple[int, ...]:
        """The number of the mask, under which the mask is stored."""
        return (self.mask,)


@dataclass(frozen=True)
class EvaluationUnit:
    """The evaluation of some tasks. Each task is inferred among the first k masks of a run.

    Attributes:
        num_tasks: k. The masks of tasks 0 to k - 1 are in the superposition.
        algorithm: name of the algorithm that infers the task.
        objective: objective that the algorithm minimises; None if the algorithm has no objective.
        task_ids: tasks whose test batches are evaluated.
        num_distractors: number of untrained masks in addition to the k masks.
        variant: "" if the unit has the evaluation options of the run itself. Otherwise a short hash
            of the unit's options.
    """

    num_tasks: int
    algorithm: str
    objective: str | None
    task_ids: tuple[int, ...]
    num_distractors: int = 0
    variant: str = ""

    table = "evaluations"

    @property
    def details(self) -> tuple[str, ...]:
        """The table `queries`, unless nothing is inferred."""
        return () if self.algorithm == GIVEN else ("queries",)

    @property
    def inferred_by(self) -> str:
        """A text for the screen: the algorithm and the objective."""
        return f"{self.algorithm} {self.objective}" if self.objective else self.algorithm

    @property
    def way(self) -> str:
        """A text for the screen: the algorithm, the objective and the number of distractors.

        A mean over several units makes sense only if all these units have the same text.
        """
        beside = f" + {self.num_distractors} untrained" if self.num_distractors else ""
        return self.inferred_by + beside

    @property
    def num_rows(self) -> int:
        """Number of rows that the unit adds to the table `evaluations`: one row per task."""
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
    """The recall of some masks from a reservoir that stores the first k masks of a run.

    Attributes:
        num_tasks: k. The masks of tasks 0 to k - 1 are in the reservoir.
        rule: name of the rule that stores the masks.
        cue: kind of cue that recall starts from: "flipped" (a mask with inverted bits), "erased"
            (a mask with unknown bits) or "data" (a batch of images).
        task_ids: tasks whose masks are recalled.
        variant: short hash of the options that change the result and are not attributes above.
    """

    num_tasks: int
    rule: str
    cue: str
    task_ids: tuple[int, ...]
    variant: str

    table = "reservoir"
    details = ()
    num_rows = 1

    @property
    def name(self) -> str:
        """Name of the unit's file in the table, without .parquet."""
        return f"k{self.num_tasks:06d}-{self.rule}-{self.cue}-{self.variant}"

    @property
    def way(self) -> str:
        """A text for the screen: the rule and the kind of cue."""
        return f"{self.rule} {self.cue}"


@dataclass(frozen=True)
class ReservoirUnit:
    """Several recall units that use the same reservoir. A worker fills the reservoir once.

    Attributes:
        recalls: recall units with the same masks, rule and tasks, but with different kinds of cues.
            There is at least one unit.
    """

    recalls: tuple[RecallUnit, ...]

    @property
    def name(self) -> str:
        """The unit's name in log lines."""
        return self.recalls[0].name


@dataclass(frozen=True)
class RecoveryUnit:
    """The recovery of some masks by gradient descent, among the first k masks of a run.

    Attributes:
        num_tasks: k. The masks of tasks 0 to k - 1 are in the reservoirs.
        rule: name of the rule that stores the masks.
        gradients: number of gradient steps per task.
        task_ids: tasks whose masks are recovered.
        variant: short hash of the options that change the result and are not in the attributes
            `num_tasks` and `rule`.
    """

    num_tasks: int
    rule: str
    gradients: int
    task_ids: tuple[int, ...]
    variant: str

    table = "recovery"
    details = ()

    @property
    def num_rows(self) -> int:
        """Number of rows of the unit's table: the start and each step, for each task."""
        return len(self.task_ids) * (1 + self.gradients)

    @property
    def name(self) -> str:
        """Name of the unit's file in the table, without .parquet."""
        return f"k{self.num_tasks:06d}-{self.rule}-{DESCENT}-{self.variant}"

    @property
    def way(self) -> str:
        """A text for the screen: the rule and the kind of cue."""
        return f"{self.rule} {DESCENT}"


WorkUnit = EvaluationUnit | RecallUnit | RecoveryUnit


@dataclass(frozen=True)
class RunUnit:
    """A work unit of one of the runs of a command, in the form in which executors get it.

    Attributes:
        run: the label of the run, such as seed-1; "" if the command has one run.
        unit: the work unit.
    """

    run: str
    unit: Any

    @property
    def name(self) -> str:
        """The unit's name in log lines, with the label of its run."""
        name: str = self.unit.name
        return f"{self.run}/{name}" if self.run else name


def blocks_of(num_tasks: int, block: int, start: int = 0) -> Iterator[tuple[int, ...]]:
    """Yield the tasks of each block; see train_units for the arguments."""
    for first in range(start, num_tasks, block):
        yield tuple(range(first, min(first + block, num_tasks)))


def train_units(
    num_tasks: int, block: int, committed: Container[int], side_by_side: int = 1, start: int = 0
) -> Iterator[TrainUnit]:
    """Group the blocks in which a task has no committed mask into units, and yield the units.

    During the iteration, the caller may add tasks to `committed` if their blocks were already
    yielded.

    Args:
        num_tasks: number of tasks of the run.
        block: number of tasks per block; the last block may be smaller.
        committed: numbers of the tasks that have a committed mask.
        side_by_side: number of blocks per unit; the last unit may have fewer.
        start: the first task of the first block.
    """
    blocks = blocks_of(num_tasks, block, start)
    lacking = (ids for ids in blocks if any(i not in committed for i in ids))
    while some := list(islice(lacking, side_by_side)):
        ids = tuple(chain.from_iterable(some))
        missing = tuple(i for i in ids if i not in committed)
        yield TrainUnit(f"unit-{ids[0]:06d}", ids, missing, tuple(map(len, some)))


def evaluation_units(
    config: Config, num_tasks: int, own: EvaluateConfig | None = None
) -> list[EvaluationUnit]:
    """Plan all evaluation units of one checkpoint.

    Args:
        config: the requested configuration, with resolved checkpoints and algorithms.
        num_tasks: k, the checkpoint.
        own: evaluation options of the run itself; None if they equal the requested options. If the
            options of a unit differ from those of the run itself, the unit gets another name, so
            that its file does not replace a file of the run itself.

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
    """Return the settings that can change the rows of an evaluation unit.

    The masks, the distractors, the algorithm and the objective can also change the rows, but the
    unit's name already contains them.

    Args:
        evaluate: evaluation options, with num_images resolved.
        algorithm: name of the algorithm that infers the task.
        num_tasks: k, the checkpoint.

    Returns:
        A mapping from column name to setting. The table `evaluations` has these columns, so that
        rows with different settings can be distinguished. A setting that the algorithm does not
        use is None.
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
    """Return the settings that can change the row of a recall unit.

    Args:
        config: the requested configuration, with `auto` resolved.
        cue: kind of cue.
        num_tasks: k, the checkpoint.

    Returns:
        A mapping from column name of the table `reservoir` to setting. `share`, the fraction of the
        cue's bits that are inverted or unknown, is None for cues of the kind "data".
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
    """Plan all recall units of one checkpoint: one unit per rule and kind of cue, except descent.

    Args:
        config: the requested configuration, with `auto` resolved.
        num_tasks: k, the checkpoint.
    """
    asked = tuple(evaluated_tasks(num_tasks, config.evaluate.tasks))
    return [
        RecallUnit(num_tasks, rule, cue, asked, _digest(recall_settings(config, cue, num_tasks)))
        for rule in config.reservoir.rules
        for cue in config.reservoir.cues
        if cue != DESCENT
    ]


def recovery_settings(config: Config, num_tasks: int) -> dict[str, Any]:
    """Return the settings that can change the rows of a recovery unit.

    Args:
        config: the requested configuration, with `auto` resolved.
        num_tasks: k, the checkpoint.

    Returns:
        A mapping from column name of the table `recovery` to setting.
    """
    reservoir, evaluate = config.reservoir, config.evaluate
    return {
        "block": reservoir.block,
        "gradients": reservoir.gradients,
        "batch_size": evaluate.batch_size,
        "batches": evaluate.batches,
        "tasks_asked": len(evaluated_tasks(num_tasks, evaluate.tasks)),
    }


def recovery_units(config: Config, num_tasks: int) -> list[RecoveryUnit]:
    """Plan all recovery units of one checkpoint: one unit per rule, if descent is among the cues.

    Args:
        config: the requested configuration, with `auto` resolved.
        num_tasks: k, the checkpoint.
    """
    if DESCENT not in config.reservoir.cues:
        return []
    asked = tuple(evaluated_tasks(num_tasks, config.evaluate.tasks))
    variant = _digest(recovery_settings(config, num_tasks))
    gradients = config.reservoir.gradients
    return [
        RecoveryUnit(num_tasks, rule, gradients, asked, variant) for rule in config.reservoir.rules
    ]


def _objectives(config: Config, algorithm: str) -> list[str] | list[None]:
    return [None] if algorithm in WITHOUT_OBJECTIVE else config.evaluate.objectives


def _variant(asked: EvaluateConfig, own: EvaluateConfig, algorithm: str, num_tasks: int) -> str:
    """Return "" if the options equal the options of the run itself, otherwise their hash."""
    settings = evaluation_settings(asked, algorithm, num_tasks)
    return "" if settings == evaluation_settings(own, algorithm, num_tasks) else _digest(settings)


def evaluated_tasks(num_tasks: int, at_most: int | None) -> list[int]:
    """Choose the tasks to evaluate among the first k tasks.

    The tasks are evenly spaced, and include the first and the last task.

    Args:
        num_tasks: k.
        at_most: largest number of tasks. If it is 1, only the last task is chosen. If it is None,
            all tasks are chosen.
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
    """Return the largest k for which the masks of tasks 0 to k - 1 are all committed."""
    return next(k for k in count() if k not in committed)


class Checkpoints:
    """The checkpoints that are not ready yet.

    A checkpoint k is ready when the tasks 0 to k - 1 are seen: their masks are committed, or a
    learner on a stream has passed them. Other tasks do not matter.

    Args:
        sizes: the number k of each checkpoint, in any order.
    """

    def __init__(self, sizes: Collection[int]) -> None:
        self._waiting = sorted(sizes)
        self._prefix = 0

    def ready(self, seen: Container[int]) -> Iterator[int]:
        """Yield each checkpoint that has become ready since the last call, smallest first."""
        while self._prefix in seen:
            self._prefix += 1
        while self._waiting and self._waiting[0] <= self._prefix:
            yield self._waiting.pop(0)
