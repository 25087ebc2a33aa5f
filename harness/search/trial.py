"""One trial of a search: a few tasks trained in stages, and measured after each.

A plain class, which knows no Ray: harness/search/tuning.py makes an actor of it. The masks are
those that harness/scale.py would train by the same configuration, and so are the accuracies.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from harness.config.options import resolved_options
from harness.config.schema import AUTO, Config
from harness.plan.resolve import automatic_block, resolve
from harness.plan.units import evaluation_units, train_units
from harness.run.spec import RunSpec
from harness.search.config import TuneConfig
from harness.workers.device import own, pick_device
from harness.workers.evaluating import GRADIENT_BYTES, EvaluateWorker
from harness.workers.queries import Queries
from harness.workers.training import trainer_of
from supsup_core.data import ImageSet
from supsup_core.engines.choose import engine_for
from supsup_core.inference.margin import expected_task_accuracy
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.states.bits import BitStates
from supsup_core.states.layout import TaskState


@dataclass(frozen=True)
class Report:
    """What a trial has reached; fractions as in the table `trials`.

    Attributes:
        rung: 1 after the first stage, times the reduction at each; a search compares trials
            of the same rung.
        steps: taken by each task.
    """

    rung: int
    steps: int
    accuracy: float
    task_accuracy: float
    expected_task_accuracy: float
    expected_accuracy: float

    def as_dict(self) -> dict[str, float]:
        """For Tune."""
        return asdict(self)


def resolve_trial(
    config: Config, input_shape: tuple[int, ...], num_classes: int, *, has_bfloat16: bool
) -> Config:
    """Replace every `auto`: as a run does, but that a block takes all tasks where it can."""
    config = resolved_options(config)
    capabilities = RunSpec(config, input_shape, num_classes).capabilities
    if config.train.block == AUTO:
        # A run shares its tasks out to four actors at least; a trial has one.
        block = automatic_block(
            4 * config.tasks,
            capabilities.num_gains,
            num_activations=capabilities.num_activations,
            batch_size=config.train.batch_size,
        )
        config = replace(config, train=replace(config.train, block=block))
    return resolve(config, capabilities, has_bfloat16=has_bfloat16)


def stage_steps(steps: int, tune: TuneConfig) -> dict[int, int]:
    """Steps after which a trial reports -> the rung that it has then reached.

    Where there are few steps, stages fall together, and the last of them counts.
    """
    rungs = [tune.reduction**i for i in range(tune.stages)]
    return {-(-steps * rung // tune.last_rung): rung for rung in rungs}


class BlockTrial:
    """Trains the tasks of one configuration and measures them.

    Args:
        spec: its configuration resolved.
        train, test: images.
        tune: how the search goes.
    """

    def __init__(self, spec: RunSpec, train: ImageSet, test: ImageSet, tune: TuneConfig) -> None:
        torch.set_num_threads(1)  # as in a run's actors: results depend on it
        self._spec, self._test, self._tune = spec, own(test), tune
        self._device = pick_device()
        self._trainer = trainer_of(spec, own(train), self._test, self._device)

    def reports(self) -> Iterator[Report]:
        """Train up to each stage as its report is asked for."""
        config = self._spec.config
        after = stage_steps(config.train.steps, self._tune)
        blocks = [
            self._trainer.stages([self._spec.task(i) for i in unit.task_ids], list(after))
            for unit in train_units(config.tasks, int(config.train.block), ())
        ]
        for (steps, rung), parts in zip(after.items(), zip(*blocks, strict=True), strict=True):
            yield self._measured(steps, rung, [state for states, _ in parts for state in states])

    def _measured(self, steps: int, rung: int, states: Sequence[TaskState]) -> Report:
        spec = self._spec
        measured = [
            self._trainer.measure(spec.task(i), state).accuracy for i, state in enumerate(states)
        ]
        accuracy = float(np.mean(measured))
        rows = spec.layout.pack(states)
        asked, task_accuracy = self._inferred(rows)
        expected = expected_task_accuracy(*self._slopes(rows, asked), self._tune.among)
        return Report(rung, steps, accuracy, task_accuracy, expected, accuracy * expected)

    def _inferred(self, rows: np.ndarray) -> tuple[list[int], float]:
        """The tasks asked about, and how many of their batches were recognised.

        By the first algorithm and objective of the configuration, as a run's last checkpoint.
        """
        first, *_ = units = evaluation_units(self._spec.config, len(rows))
        worker = EvaluateWorker(self._spec, self._test, "trial")  # it keeps the masks it has seen
        asked: list[int] = []
        found: list[float] = []
        for unit in units:
            same = (unit.algorithm, unit.objective) == (first.algorithm, first.objective)
            if same and not unit.num_distractors:
                table = worker.run(unit, rows)
                asked += unit.task_ids
                found += table["task_accuracy"].to_pylist()
        return asked, float(np.mean(found))

    def _slopes(self, rows: np.ndarray, asked: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """D objective / d alpha (Q, T) of the same queries, all alphas equal, and their tasks."""
        spec = self._spec
        queries = Queries(spec, self._test, self._device)
        batches = [queries.of(i) for i in asked]
        objective = OBJECTIVES[next(iter(spec.config.evaluate.objectives), "H")]
        states = BitStates(spec.layout, rows, self._device)
        engine = engine_for(spec.network, queries.weights, states, spec.num_classes)
        alphas = torch.full((1, len(rows)), 1 / len(rows), device=self._device)
        images = queries.images(batches)
        numbers = engine.numbers_per_query(images.shape[1])
        found = [
            engine.gradient(some, objective)(alphas).cpu()
            for some in images.split(max(1, GRADIENT_BYTES // (4 * numbers)))
        ]
        truth = [one.task.task_id for one in batches for _ in one.batches]
        return torch.cat(found), torch.tensor(truth)
