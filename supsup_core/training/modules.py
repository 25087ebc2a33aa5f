"""Train tasks on a torch.nn.Module on the CPU, one task after another within each step.

Autograd computes only the gradient in the effective weights. The layers of fused_layers.py do the
rest: the optimiser's step and the new mask. A task has its own scores, its own optimiser and its
own graph. So the memory of activations does not grow with the block, and a mask does not depend on
the other tasks of the block, as long as its images do not.

Tests compare the result with the result of the plain form in autograd.py.

Shape letters: B tasks of the block, N images of a batch, O outputs of a layer.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from supsup_core.methods.planes import PlaneMethod
from supsup_core.methods.protocol import Shared
from supsup_core.networks.mlp import draw_signs
from supsup_core.networks.module import ModuleNetwork
from supsup_core.networks.protocol import MaskedTensor
from supsup_core.networks.running import channels_last
from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training.autograd import AutogradTrainer
from supsup_core.training.batches import Batch, block_batches
from supsup_core.training.descent import first_statistics, with_floats
from supsup_core.training.freed_memory import keep_freed_memory
from supsup_core.training.fused_layers import layer_form
from supsup_core.training.layers import BlockLayer
from supsup_core.training.protocol import OnStep


@dataclass(frozen=True, eq=False)  # == of tensors has no single truth value
class TaskLayers:
    """The trained data of one task.

    Attributes:
        layers: a layer for each masked tensor, with a block of one task: (1, *shape).
        floats: a mapping from name to the running statistics of the network.
    """

    layers: Sequence[BlockLayer]
    floats: Mapping[str, Tensor]

    def state(self) -> TaskState:
        """Make the state of the task."""
        planes = tuple(bits[0] for layer in self.layers for bits in layer.planes())
        floats = {name: values[None] for name, values in self.floats.items()}
        (state,) = with_floats([TaskState(planes)], floats)
        return state


class ModuleTrainer(AutogradTrainer):
    """A fast trainer on the CPU, for a ModuleNetwork and a finder with a rule for each tensor.

    The arguments are those of BlockTrainer. trains_on_modules in choose.py says which networks,
    finders and recipes are supported.
    """

    def stages(
        self,
        tasks: Sequence[Task],
        after: Collection[int],
        shared: Shared | None = None,
        on_step: OnStep | None = None,
        batches: Iterator[Batch] | None = None,
    ) -> Iterator[tuple[list[TaskState], Shared]]:
        """Train a block of tasks; see Trainer.stages."""
        keep_freed_memory()
        recipe = self._recipe
        trained = [self._task(start) for start in self._starts(tasks, shared)]
        order = batches or block_batches(tasks, self._data, recipe, self._seed)
        last = max(after)
        for step in range(last + 1):
            if step in after:
                yield [task.state() for task in trained], {}
            if step == last:
                return
            images, labels = self._batch(next(order))
            rate = recipe.learning_rate_at(step)
            for task, shown, classes in zip(trained, images, labels, strict=True):
                self._learn(task, channels_last(shown), classes, rate)
            if on_step is not None:
                on_step(step + 1)

    @property
    def _module(self) -> ModuleNetwork:
        assert isinstance(self._network, ModuleNetwork)
        return self._network

    @cached_property
    def _constants(self) -> list[float]:
        """The magnitude of the weights of each masked tensor, as float32 stores it."""
        return [float(self._weights[t.source].abs().max()) for t in self._network.tensors]

    @cached_property
    def _effective(self) -> dict[str, Tensor]:
        """Memory for the effective weights of one task, a mapping from name to tensor.

        All tasks use the same memory, one after another.
        """
        return {
            tensor.source: channels_last(
                torch.empty(tensor.shape, dtype=self._dtype)
            ).requires_grad_()
            for tensor in self._network.tensors
        }

    def _task(self, begun: Mapping[str, np.ndarray]) -> TaskLayers:
        """Make the layers of a task from its first scores, a mapping from name to scores."""
        layers = [self._layer(i, tensor, begun) for i, tensor in enumerate(self._network.tensors)]
        accurate = torch.promote_types(self._dtype, torch.float32)
        statistics = first_statistics(self._network, 1, accurate, self._device)
        return TaskLayers(layers, {name: values[0] for name, values in statistics.items()})

    def _layer(
        self, index: int, tensor: MaskedTensor, begun: Mapping[str, np.ndarray]
    ) -> BlockLayer:
        assert isinstance(self._method, PlaneMethod)
        return layer_form(self._method, tensor, self._device)(
            tensor,
            begun[tensor.name][None],
            draw_signs(tensor.shape, self._seed, index)[None],
            self._method,
            self._recipe.make_optimizer(),
            self._dtype,
            self._device,
        )

    def _learn(
        self,
        task: TaskLayers,
        images: Float[Tensor, "N ..."],
        labels: Integer[Tensor, " N"],
        rate: float,
    ) -> None:
        """Take one step of one task."""
        leaves = list(self._effective.values())
        with torch.no_grad():
            for leaf, layer, constant in zip(leaves, task.layers, self._constants, strict=True):
                torch.mul(layer.masked[0], constant, out=leaf)
        logits = self._module.tracked_logits(self._weights, self._effective, images, task.floats)
        loss = torch.nn.functional.cross_entropy(logits / self._recipe.temperature, labels)
        slopes = torch.autograd.grad(loss, leaves)
        for layer, slope, constant in zip(task.layers, slopes, self._constants, strict=True):
            layer.learn_from(slope[None].mul_(constant), rate)
