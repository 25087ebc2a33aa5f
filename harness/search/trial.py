"""One trial of a search: train a few tasks in stages, and measure them after each stage.

The trial is a plain class that does not use Ray; harness/search/tuning.py runs it in an actor. The
masks and the accuracies are the same as in a run of harness/scale.py with the trial's
configuration.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from harness.config.names import AUTO
from harness.config.options import resolved_options
from harness.config.schema import Config
from harness.data.dataset import Dataset
from harness.plan.blocks import train_units
from harness.plan.device import pick_device
from harness.plan.evaluation import evaluation_units
from harness.plan.resolve import automatic_block, resolve
from harness.run.memory import check_weights
from harness.run.refusals import check_against_data, check_any_order, check_capabilities
from harness.run.spec import RunSpec
from harness.search.config import TuneConfig
from harness.workers.evaluating import EvaluateWorker
from harness.workers.images import own
from harness.workers.queries import Queries
from harness.workers.training import trainer_of
from supsup_core.data import ImageSet
from supsup_core.engines.choose import engine_for, states_for
from supsup_core.inference.margin import expected_task_accuracy
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.states.layout import TaskState


@dataclass(frozen=True)
class Report:
    """The measured values of a trial at the end of a stage.

    Attributes:
        rung: the number by which ASHA knows the stage. It is 1 for the first stage. For each later
            stage, it is the previous rung times `tune.reduction`. ASHA compares trials at the same
            rung.
        steps: number of training steps so far, per task.
        accuracy: mean accuracy of the tasks, with the task given.
        task_accuracy: task accuracy among the trial's own masks.
        expected_task_accuracy: expected task accuracy among `tune.among` masks.
        expected_accuracy: accuracy times expected_task_accuracy.
    """

    rung: int
    steps: int
    accuracy: float
    task_accuracy: float
    expected_task_accuracy: float
    expected_accuracy: float

    def as_dict(self) -> dict[str, float]:
        """Return a mapping from attribute name to value, the form that Ray Tune needs."""
        return asdict(self)


def resolve_trial(
    config: Config, input_shape: tuple[int, ...], num_classes: int, *, bfloat16_is_faster: bool
) -> Config:
    """Replace every `auto` by a value.

    The values are those of a run, with one exception: a single block may have all tasks of the
    trial.

    Args:
        config: the trial's configuration.
        input_shape: shape of one image: channels, rows, columns.
        num_classes: number of classes of the data set.
        bfloat16_is_faster: whether matrix products in bfloat16 are faster than in float32 on the
            machine that trains.
    """
    config = resolved_options(config)
    capabilities = RunSpec(config, input_shape, num_classes).capabilities
    if config.train.block == AUTO:
        # automatic_block gives a block at most a quarter of the tasks, because a run has four
        # actors or more. A trial has one actor, so one block may have all tasks of the trial.
        block = automatic_block(
            4 * config.tasks,
            capabilities.num_gains,
            num_activations=capabilities.num_activations,
            batch_size=config.train.batch_size,
        )
        config = replace(config, train=replace(config.train, block=block))
    return resolve(config, capabilities, bfloat16_is_faster=bfloat16_is_faster)


def checked_spec(config: Config, data: Dataset) -> RunSpec:
    """Make the specification of a trial, and check it against the data set.

    Args:
        config: the trial's configuration, which may contain `auto`.
        data: the data set of the search.

    Raises:
        UserError: a value does not fit the data set, the memory, the network or a search.
    """
    config = resolved_options(config)
    check_against_data(config, data)
    check_weights(config, data.input_shape, data.num_classes)
    spec = RunSpec(config, data.input_shape, data.num_classes)
    check_any_order(config, spec.capabilities, "in a search, which trains tasks in any order")
    check_capabilities(config, spec.capabilities)
    return spec


def stage_steps(steps: int, tune: TuneConfig) -> dict[int, int]:
    """Compute the number of training steps at the end of each stage.

    Args:
        steps: number of training steps per task in the whole trial.
        tune: the settings of the search, with the number of stages and the reduction.

    Returns:
        A mapping from the number of steps at the end of a stage to the number (rung) of this stage.
        If there are few steps, several stages may end at the same step. The mapping then has only
        the rung of the last of these stages.
    """
    rungs = [tune.reduction**i for i in range(tune.stages)]
    return {-(-steps * rung // tune.last_rung): rung for rung in rungs}


class BlockTrial:
    """A trial that trains all tasks of one configuration in stages, and measures them.

    Args:
        spec: the trial's specification. Its configuration contains no `auto`.
        train: the training images.
        test: the test images.
        tune: the settings of the search.
    """

    def __init__(self, spec: RunSpec, train: ImageSet, test: ImageSet, tune: TuneConfig) -> None:
        torch.set_num_threads(1)  # as in a run: results depend on the number of threads
        self._spec, self._test, self._tune = spec, own(test), tune
        self._device = pick_device()
        self._trainer = trainer_of(spec, own(train), self._test, self._device)

    def reports(self) -> Iterator[Report]:
        """Train, and yield one report at the end of each stage.

        The next stage begins when this iterator is asked for the next report. So ASHA can compare
        the trials after each stage, and stop the worse trials before their next stage.
        """
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
        """Infer the tasks of test batches among all masks of the trial.

        The batches are the same as at the last checkpoint of a run with this configuration. If the
        configuration has several algorithms or objectives, only the first of them is used.

        Args:
            rows: packed masks of all tasks.

        Returns:
            Two values: the numbers of the tasks that the batches belong to, and the task accuracy.
        """
        first, *_ = units = evaluation_units(self._spec.config, len(rows))
        # One worker infers all units, because a worker keeps the masks that it got.
        worker = EvaluateWorker(self._spec, self._test, "trial")
        asked: list[int] = []
        found: list[float] = []
        for unit in units:
            same = (unit.algorithm, unit.objective) == (first.algorithm, first.objective)
            if same and not unit.num_distractors:
                table = worker.run(unit, rows)[unit.table]
                asked += unit.task_ids
                found += table["task_accuracy"].to_pylist()
        return asked, float(np.mean(found))

    def _slopes(self, rows: np.ndarray, asked: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the slopes of all tasks for some test batches.

        The coefficients of all masks are equal.

        Args:
            rows: packed masks of all T tasks.
            asked: task numbers. The test batches of these tasks are the Q queries.

        Returns:
            Two tensors: the slopes d objective / d alpha of shape (Q, T), and the number of each
            query's right task, of shape (Q,).
        """
        spec = self._spec
        queries = Queries(spec, self._test, self._device)
        batches = [queries.of(i) for i in asked]
        objective = OBJECTIVES[next(iter(spec.config.evaluate.objectives), "H")]
        states = states_for(spec.network, spec.layout, rows, self._device)
        engine = engine_for(spec.network, queries.weights, states, spec.num_real)
        alphas = torch.full((1, len(rows)), 1 / len(rows), device=self._device)
        images = queries.images(batches)
        found = [
            engine.gradient(some, objective)(alphas).cpu()
            for some in images.split(engine.queries_together(images.shape[1]))
        ]
        truth = [one.task.task_id for one in batches for _ in one.batches]
        return torch.cat(found), torch.tensor(truth)
