"""The worker of an actor that holds a part of a checkpoint's masks. It does not use Ray.

harness/driver/sharding.py submits the units of this file, and describes their order.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

from harness.plan.units import EvaluationUnit
from harness.run.spec import RunSpec
from harness.workers.answers import Answers, compared
from harness.workers.images import own
from harness.workers.prepared import COPIES
from harness.workers.queries import Queries
from supsup_core.bits.infer import BitInference
from supsup_core.bits.shards import Leaders, leaders, merge
from supsup_core.data import ImageSet
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.names import RANKED

_CPU = torch.device("cpu")  # bits/ infers on the CPU
QUERIES_TOGETHER = 128  # number of queries per group; `progress` grows after each group


@dataclass(frozen=True)
class CountUnit:
    """A unit that counts ones in one part of a checkpoint's masks.

    For each bit position of a packed mask, it counts the masks of the part that have a one at this
    position.

    Attributes:
        num_tasks: k, the checkpoint.
        place: the part's number, from 0.
    """

    num_tasks: int
    place: int

    @property
    def name(self) -> str:
        """The unit's name in log lines."""
        return f"count of part {self.place} of {self.num_tasks} masks"


@dataclass(frozen=True)
class LeadersUnit:
    """A unit that finds the leaders in one part of the masks, for the queries of some tasks.

    The leader of a query is a task of this part. Among all masks of the part, its mask has the
    smallest product with the query's evidence. (The product is the sum of the evidence of the
    weights that the mask keeps.)

    Attributes:
        asked: the evaluation unit.
        place: the part's number, from 0.
        first: the task number of the part's first mask.
    """

    asked: EvaluationUnit
    place: int
    first: int

    @property
    def name(self) -> str:
        """The unit's name in log lines."""
        return f"{self.asked.name} by part {self.place}"


@dataclass(frozen=True)
class ScoreUnit:
    """A unit that counts the right labels of an evaluation unit's batches, after inference.

    Attributes:
        asked: the evaluation unit.
        answers: the merged answers of all parts.
        rows: a mapping from task number to packed mask, for all true and inferred tasks.
    """

    asked: EvaluationUnit
    answers: Answers
    rows: dict[int, np.ndarray]

    @property
    def name(self) -> str:
        """The unit's name in log lines."""
        return f"score of {self.asked.name}"


@dataclass(frozen=True)
class PartAnswers:
    """The answers of one part of the masks to the queries of an evaluation unit.

    Attributes:
        leaders: for each query, the best task of this part, found with the unit's algorithm.
        exact: the best tasks by exact one-shot, for some of the queries: the function `compared`
            chooses these queries. None if the unit's algorithm is not one_shot_ranked.
        seconds: the mean time of one inference, in seconds.
        num_masks: the number of masks in the part.
    """

    leaders: Leaders
    exact: Leaders | None
    seconds: float
    num_masks: int


class ShardWorker:
    """A worker that holds a part of a checkpoint's masks.

    Args:
        spec: the run's specification.
        test: the test images.
        name: the worker's name. It is not used, because the result rows do not contain it.
    """

    def __init__(self, spec: RunSpec, test: ImageSet, name: str) -> None:
        torch.set_num_threads(1)
        self._spec = spec
        self._queries = Queries(spec, own(test), _CPU)
        self._part: tuple[int, BitInference] | None = None  # checkpoint k and masks
        self._warm: set[tuple[str, str]] = set()  # algorithm and objective of earlier units
        self._done = 0.0

    def progress(self) -> float:
        """Return the fraction of the current unit that is done, from 0 to 1.

        Another thread calls this method while `run` is busy.
        """
        return self._done

    def run(
        self,
        unit: CountUnit | LeadersUnit | ScoreUnit,
        rows: np.ndarray | None = None,
        counts: np.ndarray | None = None,
    ) -> np.ndarray | PartAnswers | dict[str, pa.Table]:
        """Do one step of a sharded evaluation.

        Args:
            unit: the step.
            rows: packed masks of the part; None for ScoreUnit.
            counts: for LeadersUnit, the sum of the counts of all parts: for each bit position of a
                packed mask, the number of masks with a one at this position. None for other units.

        Returns:
            The part's counts for CountUnit, the part's answers for LeadersUnit, or the tables of
            Queries.score for ScoreUnit.
        """
        self._done = 0.0
        if isinstance(unit, ScoreUnit):
            asked = [self._queries.of(i) for i in unit.asked.task_ids]
            return self._queries.score(
                unit.asked, asked, unit.answers, lambda task: self._queries.state(unit.rows[task])
            )
        assert rows is not None
        if isinstance(unit, CountUnit):
            return self._masks(unit.num_tasks, rows).counts
        assert counts is not None
        masks = self._masks(unit.asked.num_tasks, rows)
        masks.superpose(counts, unit.asked.num_tasks)
        return self._answers(unit, masks, rows[:1])

    def _masks(self, num_tasks: int, rows: np.ndarray) -> BitInference:
        """Prepare the part's masks, or return them if they are prepared already.

        The prepared masks are kept for later units of the checkpoint. If a new actor replaces a
        lost actor, the new actor prepares the masks again.
        """
        if self._part is None or self._part[0] != num_tasks:
            self._part = None  # free the old masks first, because both may be large
            self._part = num_tasks, self._prepared(rows)
        return self._part[1]

    def _prepared(self, rows: np.ndarray) -> BitInference:
        weights = list(self._queries.weights.values())
        return BitInference(weights, self._spec.layout, rows, self._spec.num_real)

    def _warm_up(self, unit: EvaluationUnit, row: np.ndarray, query: torch.Tensor) -> None:
        """Answer a query among copies of one mask, so that kernels are compiled or loaded.

        Later calls with the same algorithm and objective do nothing.

        Args:
            unit: the evaluation unit, which gives the algorithm and the objective.
            row: (1, R) the packed mask of R bytes.
            query: one query.
        """
        assert unit.objective is not None
        form = unit.algorithm, unit.objective
        if form not in self._warm:
            self._warm.add(form)
            copies = self._prepared(row.repeat(COPIES, axis=0))
            evidence = copies.evidence(query, OBJECTIVES[unit.objective])
            leaders(copies, 0, evidence, ranked=unit.algorithm == RANKED)

    def _answers(self, unit: LeadersUnit, bits: BitInference, row: np.ndarray) -> PartAnswers:
        asked = [self._queries.of(i) for i in unit.asked.task_ids]
        images = self._queries.images(asked).flatten(2)
        ranked = unit.asked.algorithm == RANKED
        assert unit.asked.objective is not None
        objective = OBJECTIVES[unit.asked.objective]
        found: list[Leaders] = []
        seconds, exact = 0.0, None
        self._warm_up(unit.asked, row, images[:1])
        for queries in images.split(QUERIES_TOGETHER):
            started = time.perf_counter()
            evidence = bits.evidence(queries, objective)
            found.append(leaders(bits, unit.first, evidence, ranked=ranked))
            seconds += time.perf_counter() - started
            self._done += len(queries) / len(images)
        if ranked:
            evidence = bits.evidence(images[compared(len(images))], objective)
            exact = leaders(bits, unit.first, evidence)
        return PartAnswers(Leaders.joined(found), exact, seconds / len(images), len(bits))


def agreed(parts: Sequence[PartAnswers]) -> Answers:
    """Merge the answers of all parts.

    The parts work at the same time. So the time of an inference is the time of the slowest part.

    Args:
        parts: the answers of each part, in the order of the parts' tasks.
    """
    found = merge([part.leaders for part in parts])
    exact = [part.exact for part in parts if part.exact is not None]
    some = found.tasks[compared(len(found.tasks))]
    sizes = [part.num_masks for part in parts]
    shares = [part.leaders.bits_read_fraction for part in parts]
    share = float(np.average(shares, weights=sizes))
    return Answers(
        replace(found, bits_read_fraction=share),
        max(part.seconds for part in parts),
        device=_CPU,
        agreement=float((some == merge(exact).tasks).double().mean()) if exact else None,
    )
