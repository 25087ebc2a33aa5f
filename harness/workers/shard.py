"""What runs inside an actor that holds a part of a checkpoint's masks: it knows no Ray.

harness/driver/sharding.py says which unit follows which.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from harness.plan.units import EvaluationUnit
from harness.run.spec import RunSpec
from harness.workers.device import own
from harness.workers.queries import Answers, Queries, compared
from supsup_core.bits.infer import BitInference
from supsup_core.bits.shards import Leaders, leaders, merge
from supsup_core.data import ImageSet
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.names import RANKED

QUERIES_TOGETHER = 128  # so that progress is seen


@dataclass(frozen=True)
class CountUnit:
    """Count the ones of one part of a checkpoint's masks.

    Attributes:
        num_tasks: k, the checkpoint.
        place: of the part.
    """

    num_tasks: int
    place: int

    @property
    def name(self) -> str:
        """For people."""
        return f"count of part {self.place} of {self.num_tasks} masks"


@dataclass(frozen=True)
class LeadersUnit:
    """Answer an evaluation unit's queries with the leaders of one part.

    Attributes:
        asked: the evaluation unit.
        place: of the part.
        first: task of its first mask.
    """

    asked: EvaluationUnit
    place: int
    first: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.asked.name} by part {self.place}"


@dataclass(frozen=True)
class ScoreUnit:
    """Score an evaluation unit's batches with the masks that were inferred.

    Attributes:
        asked: the evaluation unit.
        answers: of all parts together.
        rows: by task, the packed masks that scoring needs.
    """

    asked: EvaluationUnit
    answers: Answers
    rows: dict[int, np.ndarray]

    @property
    def name(self) -> str:
        """For people."""
        return f"score of {self.asked.name}"


@dataclass(frozen=True)
class PartAnswers:
    """What one part answers.

    Attributes:
        leaders: by the algorithm that was asked for.
        exact: the exact ones of the queries that are compared, where that algorithm is another.
        seconds: for one inference.
        num_masks: in the part.
    """

    leaders: Leaders
    exact: Leaders | None
    seconds: float
    num_masks: int


class ShardWorker:
    """Holds a part of a checkpoint's masks; what runs inside an actor, and knows no Ray.

    Args:
        spec: of the run.
        test: the test images.
        name: of this worker; unused, for its rows do not name it.
    """

    def __init__(self, spec: RunSpec, test: ImageSet, name: str) -> None:
        torch.set_num_threads(1)
        self._spec = spec
        self._queries = Queries(spec, own(test), torch.device("cpu"))
        self._part: tuple[int, BitInference] | None = None  # of the checkpoint it belongs to
        self._done = 0.0

    def progress(self) -> float:
        """Share of the current unit that is done; asked from another thread."""
        return self._done

    def run(
        self,
        unit: CountUnit | LeadersUnit | ScoreUnit,
        rows: np.ndarray | None = None,
        counts: np.ndarray | None = None,
    ) -> np.ndarray | PartAnswers | pa.Table:
        """Do a unit.

        Args:
            unit: what to do.
            rows: packed masks of the part; none to score.
            counts: of ones at each bit over all parts; for LeadersUnit.

        Returns:
            counts of the part, its answers, or rows of the table `evaluations`.
        """
        self._done = 0.0
        if isinstance(unit, ScoreUnit):
            asked = [self._queries.of(i) for i in unit.asked.task_ids]
            return self._queries.score(unit.asked, asked, unit.answers, unit.rows.__getitem__)
        assert rows is not None
        if isinstance(unit, CountUnit):
            return self._masks(unit.num_tasks, rows).counts
        assert counts is not None
        masks = self._masks(unit.asked.num_tasks, rows)
        masks.superpose(counts, unit.asked.num_tasks)
        return self._answers(unit, masks)

    def _masks(self, num_tasks: int, rows: np.ndarray) -> BitInference:
        """Kept for the checkpoint's other units; an actor that was restarted begins anew."""
        if self._part is None or self._part[0] != num_tasks:
            self._part = None  # both may be large
            spec = self._spec
            weights = list(self._queries.weights.values())
            masks = BitInference(weights, spec.layout, rows, spec.num_classes)
            self._part = num_tasks, masks
        return self._part[1]

    def _answers(self, unit: LeadersUnit, bits: BitInference) -> PartAnswers:
        asked = [self._queries.of(i) for i in unit.asked.task_ids]
        images = self._queries.images(asked).flatten(2)
        ranked = unit.asked.algorithm == RANKED
        assert unit.asked.objective is not None
        objective = OBJECTIVES[unit.asked.objective]
        found: list[Leaders] = []
        seconds, exact = 0.0, None
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
    """What the parts, in the order of their tasks, answer together.

    Parts answer at once, so an inference takes as long as the slowest of them.
    """
    tasks = merge([part.leaders for part in parts])
    exact = [part.exact for part in parts if part.exact is not None]
    some = tasks[compared(len(tasks))]
    sizes = [part.num_masks for part in parts]
    shares = [part.leaders.bits_read_fraction for part in parts]
    return Answers(
        tasks.tolist(),
        max(part.seconds for part in parts),
        num_gradients=1,
        bits_read_fraction=float(np.average(shares, weights=sizes)),
        agreement=float((some == merge(exact)).mean()) if exact else None,
    )
