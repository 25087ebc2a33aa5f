"""What every worker of a run has to know, and what follows from it."""

from dataclasses import dataclass

import numpy as np

from harness.config.schema import UNIT_MASK, Config
from supsup_core.inference.algorithms import Options
from supsup_core.networks.mlp import Network, make_network
from supsup_core.states.layout import MaskLayout
from supsup_core.states.masking import UNITS, WEIGHTS, Masking
from supsup_core.tasks import Task
from supsup_core.tasks.make import make_task, task_inputs
from supsup_core.training.recipe import Recipe


@dataclass(frozen=True)
class RunSpec:
    """What every worker of a run has to know.

    Attributes:
        config: with every `auto` resolved.
        side: pixels of a side of the images.
        num_classes: of the data set, the real neurons.
    """

    config: Config
    side: int
    num_classes: int

    @property
    def network(self) -> Network:
        """The fixed network's specification."""
        config = self.config
        return make_network(config.network, self.side**2, config.outputs, config.hidden)

    def task(self, task_id: int) -> Task:
        """One task of the run."""
        return make_task(
            self.config.family,
            task_id,
            seed=self.config.seed,
            num_tasks=self.config.tasks,
            side=self.side,
            num_classes=self.num_classes,
        )

    @property
    def masking(self) -> Masking:
        """What the bits of a mask stand for."""
        return UNITS if self.config.method == UNIT_MASK else WEIGHTS

    @property
    def layout(self) -> MaskLayout:
        """Of the packed rows."""
        return self.masking.layout(self.network)

    @property
    def options(self) -> Options:
        """What the inference algorithms are told."""
        evaluate = self.config.evaluate
        return Options(log_base=evaluate.log_base, steps=evaluate.steps, rate=evaluate.rate)

    @property
    def recipe(self) -> Recipe:
        """How masks are trained."""
        train = self.config.train
        return Recipe(
            steps=train.steps,
            batch_size=train.batch_size,
            learning_rate=train.learning_rate,
            smoothing=train.smoothing,
            decay=train.decay,
            temperature=train.temperature,
            optimizer=train.optimizer,
            momentum=train.momentum,
        )


class TaskInputs:
    """What makes the tasks of a run: one array of `task_inputs`, a part at a time.

    Args:
        spec: of the run.
        name: of the array.
    """

    def __init__(self, spec: RunSpec, name: str) -> None:
        self._spec, self._name = spec, name
        first = self[:1]
        self.shape = (spec.config.tasks, *first.shape[1:])
        self.dtype = first.dtype

    def __getitem__(self, rows: slice) -> np.ndarray:
        tasks = range(self._spec.config.tasks)[rows]
        return task_inputs([self._spec.task(i) for i in tasks])[self._name]


def lazy_inputs(spec: RunSpec) -> dict[str, TaskInputs]:
    """The arrays of `task_inputs`; none of their rows is kept in memory."""
    return {name: TaskInputs(spec, name) for name in task_inputs([spec.task(0)])}
