"""The work units of a run: the pieces of work that a driver gives to an executor.

The units depend on the configuration alone, so a resumed run has the same units.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

from harness.config.names import DESCENT
from supsup_core.names import GIVEN


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


def variant_of(settings: Mapping[str, Any]) -> str:
    """Hash the settings of a unit into eight hex digits, for the unit's name."""
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]
