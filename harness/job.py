"""What every worker of a run has to know, and what follows from it."""

from dataclasses import dataclass

from harness.config import UNIT_MASK, Config
from supsup_core.inference import Options
from supsup_core.masking import UNITS, WEIGHTS, Masking
from supsup_core.masks import MaskLayout
from supsup_core.networks import Network, make_network
from supsup_core.tasks import Task, make_task
from supsup_core.training import Recipe


@dataclass(frozen=True)
class Job:
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
