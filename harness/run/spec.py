"""The specification of a run, from which every worker makes its network, finder and tasks."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.config.options import make_named
from harness.config.schema import Config
from harness.errors import UserError
from harness.plan.capabilities import Capabilities
from harness.run.carried_code import CarriedCode
from supsup_core import names
from supsup_core.engines.bits import BitsEngine, keeps_alone
from supsup_core.engines.choose import engine_type
from supsup_core.inference.algorithms import Options
from supsup_core.methods.protocol import Method, layout_of
from supsup_core.names import GIVEN
from supsup_core.networks.module import as_network
from supsup_core.networks.protocol import Network, Weights, num_gains
from supsup_core.states.layout import StateLayout
from supsup_core.tasks.make import make_task, task_inputs
from supsup_core.tasks.protocol import Family, Setting, Task
from supsup_core.training.choose import trains_on_blocks
from supsup_core.training.recipe import Recipe
from supsup_core.training.transfer import carried_shapes, order_of


@dataclass(frozen=True)
class RunSpec:
    """The specification of a run, which every worker gets.

    The attributes below are sent to workers, and with them the source of the user's own code. Each
    process makes the network, the finder and the other objects when it first needs them.

    Attributes:
        config: the configuration, with every `auto` resolved.
        input_shape: the shape of one image: channels, rows, columns.
        num_classes: the number of classes of the data set.
    """

    config: Config
    input_shape: tuple[int, ...]
    num_classes: int

    def __getstate__(self) -> dict[str, object]:
        sent = ("config", "input_shape", "num_classes")
        return {"code": self.code, **{name: self.__dict__[name] for name in sent}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state["code"].install()
        self.__dict__.update(state)

    @cached_property
    def code(self) -> CarriedCode:
        """The source of the user's own network, finder and family, if there are any."""
        return CarriedCode.of(self.config)

    @cached_property
    def network(self) -> Network:
        """The fixed network."""
        config = self.config
        # A module may draw parameters that are not masked. The seed makes these parameters the
        # same in every process.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            made = make_named(
                "network",
                names.NETWORKS,
                config.network,
                config.network_options,
                self.input_shape,
                config.outputs,
            )
        try:
            return as_network(config.network, made, self.input_shape)
        except ValueError as error:
            raise UserError(
                f"network={config.network} must take images of shape {self.input_shape}, got: "
                f"{error}: correct the network, or choose other network_options"
            ) from error

    @cached_property
    def method(self) -> Method:
        """The finder that makes masks from scores."""
        config = self.config
        made: Method = make_named("method", names.METHODS, config.method, config.method_options)
        return made

    @cached_property
    def family(self) -> Family:
        """The family that makes the tasks."""
        config = self.config
        made: Family = make_named("family", names.FAMILIES, config.family, config.family_options)
        return made

    def task(self, task_id: int) -> Task:
        """Make one task of the run."""
        # A vector is an image with one row.
        channels, rows, columns = (1, 1, *self.input_shape)[-3:]
        config = self.config
        setting = Setting(config.seed, config.tasks, (rows, columns), self.num_classes, channels)
        return make_task(self.family, task_id, setting)

    @cached_property
    def most_classes(self) -> int:
        """The largest number of classes of a task; 0 if tasks do not choose classes."""
        if self.task(0).classes is None:
            return 0
        return max(len(self.task(i).classes or ()) for i in range(self.config.tasks))

    @property
    def num_real(self) -> int:
        """The number of real neurons, which are the outputs that stand for a class.

        If tasks renumber their labels, the classes of all tasks share these outputs.
        """
        return self.most_classes if self.task(0).renumbers else self.num_classes

    def weights(self) -> dict[str, Tensor]:
        """Draw the fixed weights of the network from the run's seed.

        Returns:
            A mapping from name to weights.
        """
        return self.network.weights(self.config.seed)

    @cached_property
    def layout(self) -> StateLayout:
        """The layout of a packed row.

        Raises:
            UserError: the finder cannot mask this network.
        """
        try:
            return layout_of(self.network, self.method)
        except ValueError as error:
            config = self.config
            raise UserError(
                f"method={config.method} must fit network={config.network}, got: {error}: choose "
                "another method or network, or other options"
            ) from error

    @property
    def _num_channels(self) -> int:
        return self.input_shape[0] if len(self.input_shape) > 2 else 1

    @cached_property
    def capabilities(self) -> Capabilities:
        """The capabilities of the network, the finder and the engine."""
        network, layout = self.network, self.layout
        # The driver may run on a machine without a GPU, so a configuration is checked for the CPU.
        # The engine of a GPU supports more.
        trains_weights, order = bool(self.trained_weights), order_of(self.method, self.recipe)
        engine = engine_type(network, layout, torch.device("cpu"), trained=trains_weights)
        changes = trains_weights and order == "sequence"  # an engine keeps the weights
        return Capabilities(
            num_gains=num_gains(network),
            num_bits=layout.num_bits,
            num_activations=network.num_activations,
            normalises=network.normalises,
            supports=frozenset([GIVEN]) if changes else engine.supports | {GIVEN},
            keeps_alone=keeps_alone(layout) and not trains_weights,
            has_planes=bool(layout.planes),
            bits_serve=issubclass(engine, BitsEngine),
            bfloat16_serves=self._num_channels == 1
            and trains_on_blocks(network, self.method, self.recipe),
            order=order,
            transfers=layout.num_bits > 0 and self.method.order != "after_first",
            carries=bool(self.carried_shapes),
            trains_weights=trains_weights,
        )

    @cached_property
    def carried_shapes(self) -> dict[str, tuple[int, ...]]:
        """The data that a task needs from earlier tasks, except their states.

        This is a mapping from name to the shape of an array of float32, or of bool if the finder's
        `shared_bits` has the name. The store keeps these arrays after some tasks.
        """
        return carried_shapes(self.network, self.method, self.recipe)

    @property
    def trained_weights(self) -> frozenset[str]:
        """The names of the weights that tasks train. Without training, the network draws them."""
        sources = {tensor.source for tensor in self.network.tensors}
        return frozenset(self.method.shared_shapes(self.network)) & sources

    def weights_for(self, task_id: int, weights: Weights) -> Weights:
        """Return the weights with which one task runs.

        Args:
            task_id: number of the task.
            weights: a mapping from name to the fixed weights, or to trained weights in their place.
        """
        of_task = self.method.weights_of_task(self.network, task_id, self.config.seed)
        return {**weights, **of_task({name: weights[name] for name in self.trained_weights})}

    @property
    def options(self) -> Options:
        """The options of the inference algorithms."""
        evaluate = self.config.evaluate
        return Options(log_base=evaluate.log_base, steps=evaluate.steps, rate=evaluate.rate)

    @property
    def recipe(self) -> Recipe:
        """The settings with which the scores are trained."""
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
            weight_decay=train.weight_decay,
            warmup=train.warmup,
            augment=train.augment,
            transfer=train.transfer,
            first_learning_rate=train.first_learning_rate,
        )


class TaskInputs:
    """An array with one row per task of a run, for example the permutations of all tasks.

    Rows are made only when they are read: `inputs[first:end]` makes the rows first to end - 1.

    Args:
        spec: the run's specification.
        name: the array's key in the result of `task_inputs`, such as "permutations".
    """

    def __init__(self, spec: RunSpec, name: str) -> None:
        self._spec, self._name = spec, name
        first = self[:1]
        self.shape = (spec.config.tasks, *first.shape[1:])
        self.dtype = first.dtype

    def __getitem__(self, rows: slice) -> np.ndarray:
        tasks = range(self._spec.config.tasks)[rows]
        spec = self._spec
        return task_inputs([spec.task(i) for i in tasks], spec.most_classes)[self._name]


def lazy_inputs(spec: RunSpec) -> dict[str, TaskInputs]:
    """Return a mapping from name to an array with one row per task of a run.

    The names are those that `task_inputs` gives. A row is made when it is read.
    """
    names = task_inputs([spec.task(0)], spec.most_classes)
    return {name: TaskInputs(spec, name) for name in names}
