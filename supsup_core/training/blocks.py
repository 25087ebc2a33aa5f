"""Train all tasks of a block on an MLP at the same time, with the classes of fused_layers.py.

Tests compare the result with the result of autograd.py, which is simpler and slower.

Shape letters: B tasks of the block, N images of a batch, O outputs and I inputs of a layer.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from math import prod

import numpy as np

from supsup_core.methods.planes import PlaneMethod
from supsup_core.methods.protocol import Shared
from supsup_core.networks.mlp import MLP, draw_signs
from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training.base import BlockTrainer
from supsup_core.training.batches import Batch, block_batches
from supsup_core.training.fused_layers import layer_form
from supsup_core.training.inputs import BlockInputs
from supsup_core.training.layers import BlockLayer, layer_gradients
from supsup_core.training.protocol import OnStep
from supsup_core.training.recipe import Recipe


def logit_constant(network: MLP, recipe: Recipe) -> float:
    """Return the product of the layers' constants, divided by the recipe's temperature."""
    return prod(network.constants) / recipe.temperature


class MLPTrainer(BlockTrainer[MLP, PlaneMethod]):
    """A fast trainer, for an MLP and a finder with a rule for each tensor.

    The arguments are those of BlockTrainer. The images must have one channel.
    """

    def stages(
        self,
        tasks: Sequence[Task],
        after: Collection[int],
        shared: Shared | None = None,
        on_step: OnStep | None = None,
        batches: Iterator[Batch] | None = None,
    ) -> Iterator[tuple[list[TaskState], Shared]]:
        """Train a block of tasks; see Trainer.stages.

        If the tasks choose classes, a batch has at most as many images as the task with the fewest
        images.
        """
        recipe = self._recipe
        inputs = BlockInputs(
            tasks, self._data, self._dtype, self._device, reorders=self._method.reorders
        )
        layers = self.begin(tasks, inputs, shared)
        constant = logit_constant(self._network, recipe)
        order = batches or block_batches(tasks, self._data, recipe, self._seed)
        last = max(after)
        for step in range(last + 1):
            if step in after:
                yield self._of_layers(layers, inputs), {}
            if step == last:
                return
            x, labels = inputs.of(next(order))
            rate = recipe.learning_rate_at(step)
            for i, delta, received in layer_gradients(layers, x, labels, constant):
                layers[i].learn(delta, received, rate)
            if on_step is not None:
                on_step(step + 1)

    def begin(
        self, tasks: Sequence[Task], inputs: BlockInputs, shared: Shared | None = None
    ) -> list[BlockLayer]:
        """Make the layers of a block before the first step, with the tasks' first scores."""
        starts = self._starts(tasks, shared)
        layers = []
        for i, tensor in enumerate(self._network.tensors):
            scores = np.stack([start[tensor.name] for start in starts])
            signs = np.broadcast_to(draw_signs(tensor.shape, self._seed, i), scores.shape)
            if i == 0:
                scores, signs = inputs.to_columns(scores), inputs.to_columns(signs)
            magnitudes = None
            if scaling := self._method.scaling(tensor):
                magnitudes = starts[0][scaling.magnitudes][None]  # the same for all tasks
                if i == 0:
                    magnitudes = inputs.to_columns(np.broadcast_to(magnitudes, scores.shape))
            form = layer_form(self._method, tensor, self._device)
            given = self._method, self._recipe.make_optimizer(), self._dtype, self._device
            layers.append(form(tensor, scores, signs, *given, magnitudes))
        return layers

    def _of_layers(self, layers: Sequence[BlockLayer], inputs: BlockInputs) -> list[TaskState]:
        """Make the state of each task from the layers of a block."""
        first, *others = (layer.planes() for layer in layers)
        planes = [*map(inputs.from_columns, first), *chain.from_iterable(others)]
        scales: dict[str, np.ndarray] = {}
        for tensor, layer in zip(self._network.tensors, layers, strict=True):
            scaling = self._method.scaling(tensor)
            if scaling is not None and layer.scale is not None:
                scales[scaling.scale] = layer.scale.float().numpy()
        return [
            TaskState(own, {name: scale[b, ...] for name, scale in scales.items()})
            for b, own in enumerate(zip(*planes, strict=True))
        ]
