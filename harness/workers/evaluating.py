"""The worker inside an evaluation actor: a plain class that does not use Ray.

The worker infers the tasks of test batches among the masks of a checkpoint. It then counts the
right labels of each batch with the mask of the inferred task. For work with reservoirs it uses
harness/workers/recalling.py and harness/workers/recovering.py.
"""

import time

import numpy as np
import pyarrow as pa
import torch

from harness.plan.device import pick_device, use_fixed_arithmetic
from harness.plan.ownership import BY_NUMBER, Ownership
from harness.plan.units import EvaluationUnit, RecoveryUnit, ReservoirUnit
from harness.run.spec import RunSpec
from harness.workers.answers import Answers, compared
from harness.workers.images import own
from harness.workers.prepared import CheckpointMasks, PreparedMasks
from harness.workers.queries import Queries
from harness.workers.recalling import ReservoirWorker
from harness.workers.recovering import recovered
from supsup_core.data import ImageSet
from supsup_core.inference.answers import Inference
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.methods.protocol import Shared
from supsup_core.names import GIVEN, RANKED


class EvaluateWorker:
    """A worker that evaluates the masks of a run, and recalls masks from reservoirs.

    Args:
        spec: the run's specification.
        test: the test images.
        name: the worker's name. It is not used, because the result rows do not contain it.
    """

    def __init__(self, spec: RunSpec, test: ImageSet, name: str) -> None:
        use_fixed_arithmetic()
        self._spec = spec
        self._queries = Queries(spec, own(test), pick_device())
        self._masks = CheckpointMasks(spec, self._queries.weights, self._queries.device)
        self._reservoirs = ReservoirWorker(spec, self._queries)
        self._warm: set[tuple[str, str | None]] = set()  # algorithm and objective of earlier units
        self._steps_done = 0.0

    def progress(self) -> float:
        """Return the fraction of the current unit that is done, from 0 to 1.

        Another thread calls this method while `run` is busy.
        """
        return self._steps_done

    def run(
        self,
        unit: EvaluationUnit | ReservoirUnit | RecoveryUnit,
        rows: np.ndarray,
        own: Ownership = BY_NUMBER,
        shared: Shared | None = None,
    ) -> dict[str, pa.Table]:
        """Do an evaluation unit, the recalls from one reservoir, or a recovery by descent.

        Args:
            unit: the unit.
            rows: (k, R) the k packed masks of the checkpoint, R bytes each.
            own: the tasks that the masks belong to.
            shared: the weights of the checkpoint, a mapping from name to array. None if all
                checkpoints have the fixed weights of the network.

        Returns:
            A mapping from the name of a table to the unit's rows: `evaluations` and `queries` (see
            Queries.score), for a ReservoirUnit `reservoir`, and for a RecoveryUnit `recovery`.
        """
        if isinstance(unit, ReservoirUnit):
            table = self._reservoirs.run(unit, rows, self._on_share)
            self._steps_done = 0.0
            return {"reservoir": table}
        if isinstance(unit, RecoveryUnit):
            table = recovered(self._spec, self._queries, unit, rows, self._on_share)
            self._steps_done = 0.0
            return {unit.table: table}
        if shared is not None:
            self._queries.use_weights(unit.num_tasks, shared)
        masks = self._masks.of(rows, unit.num_distractors)
        asked = [self._queries.of(i) for i in unit.task_ids]
        if unit.algorithm == GIVEN:
            tasks = [one.task.task_id for one in asked for _ in one.batches]
            answers = Answers.given(tasks, self._queries.device)
        else:
            answers = self._infer(unit, masks, self._queries.images(asked))
        self._steps_done = 0.0
        return self._queries.score(unit, asked, answers, masks.state, own)

    def _on_share(self, done: float) -> None:
        self._steps_done = done

    def _infer(self, unit: EvaluationUnit, masks: PreparedMasks, images: torch.Tensor) -> Answers:
        """Infer the tasks of Q queries, several queries at a time.

        Args:
            unit: the evaluation unit.
            masks: the masks among which the tasks are inferred.
            images: (Q, K, *shape) normalised images: Q queries of K images each. An image has the
                shape `shape`.
        """
        engine, options = masks.engine, self._spec.options
        objective = None if unit.objective is None else OBJECTIVES[unit.objective]
        found: list[Inference] = []
        seconds, done = 0.0, 0
        together = engine.queries_together(images.shape[1])
        # A GPU infers many queries with other kernels than one query.
        self._warm_up(unit, masks, images[: 1 if engine.device.type == "cpu" else together])
        for queries in images.split(together):
            started = time.perf_counter()
            found.append(engine.infer(queries, unit.algorithm, objective, options))
            seconds += time.perf_counter() - started
            done += len(queries)
            self._steps_done = done / len(images)
        joined = Inference.joined(found)
        agreement = self._agreement(unit, masks, images, joined.tasks)
        return Answers(joined, seconds / len(images), engine.device, agreement)

    def _warm_up(self, unit: EvaluationUnit, masks: PreparedMasks, queries: torch.Tensor) -> None:
        """Do the slow first inferences, so that they are not part of the measured time.

        The first inference of a worker with an algorithm and an objective compiles or loads
        kernels. The first inference among new masks prepares the masks.
        """
        form = unit.algorithm, unit.objective
        if form not in self._warm:
            self._warm.add(form)
            self._infer_once(unit, self._masks.copies(masks.rows[:1]), queries)
        if form not in masks.warm:
            masks.warm.add(form)
            self._infer_once(unit, masks, queries)

    def _infer_once(
        self, unit: EvaluationUnit, masks: PreparedMasks, queries: torch.Tensor
    ) -> None:
        objective = None if unit.objective is None else OBJECTIVES[unit.objective]
        masks.engine.infer(queries, unit.algorithm, objective, self._spec.options)

    def _agreement(
        self,
        unit: EvaluationUnit,
        masks: PreparedMasks,
        images: torch.Tensor,
        tasks: torch.Tensor,
    ) -> float | None:
        """Return the fraction of answers of one_shot_ranked that equal the answers of one_shot.

        Only some answers are compared. If the unit has another algorithm, return None.
        """
        if unit.algorithm != RANKED:
            return None
        assert unit.objective is not None
        index = compared(len(tasks))
        objective, options = OBJECTIVES[unit.objective], self._spec.options
        exact = masks.engine.infer(images[index], "one_shot", objective, options).tasks
        return float((exact == tasks[index]).double().mean())
