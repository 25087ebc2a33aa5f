"""The tensors of blocks that train at the same time on one device by autograd.

Shape letters: T tasks of all blocks, G groups of tasks that have the same images (the blocks, or
the tasks), N images of a batch, M images of the data set, P values of an image, S pixels that a
task chooses: P, or the pixels of one channel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from supsup_core.data import ImageSet, factor_and_offset
from supsup_core.methods.protocol import Method, Progress, Shared
from supsup_core.networks.protocol import Network, Weights, num_gains
from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training.batches import share_images
from supsup_core.training.descent import (
    first_statistics,
    stacked_scores,
    tracked_loss,
    with_floats,
)
from supsup_core.training.recipe import Recipe
from supsup_core.training.resident_blocks import ResidentBlocks, ResidentForm

# At its peak, a step stores at most this number of values per activation and image, and this number
# of float32 values per gain: scores, optimiser, gains, effective weights and their gradients.
_VALUES_PER_ACTIVATION, _VALUES_PER_GAIN = 4, 14


@dataclass(frozen=True)
class ScoreForm:
    """Shape and type of the scores with one name.

    Attributes:
        shape: shape of the scores of one task.
        dtype: type of the scores in training.
        trained: whether the optimiser changes the scores.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    trained: bool

    @property
    def num_bytes(self) -> int:
        """Bytes of the scores of one task."""
        return prod(self.shape) * self.dtype.itemsize


def score_forms(
    network: Network, method: Method, recipe: Recipe, seed: int, dtype: torch.dtype
) -> dict[str, ScoreForm]:
    """Return a mapping from name to the form of a task's scores. All tasks have the same forms.

    Args:
        network: the fixed network.
        method: the mask finder.
        recipe: the settings of the training.
        seed: the run's seed.
        dtype: type of scores that are floats.
    """
    start = stacked_scores([method.begin(network, 0, seed)], dtype, torch.device("cpu"))
    trained = method.trained_names(network, start.keys(), 0, recipe.steps)
    return {
        name: ScoreForm(tuple(values.shape[1:]), values.dtype, name in trained)
        for name, values in start.items()
    }


@dataclass(frozen=True)
class AutogradForm(ResidentForm):
    """The numbers that determine the shapes of the tensors of some blocks.

    Attributes:
        chosen: S, the number of indices of a task that chooses pixels; 0 if the tasks do not
            choose pixels.
        fed: whether the host makes the images of each step.
    """

    chosen: int
    fed: bool

    @classmethod
    def of(cls, blocks: Sequence[Sequence[Task]], num_images: int, *, fed: bool) -> "AutogradForm":
        """Make the form of blocks with equal numbers of tasks, whose batches have N images."""
        tasks = [task for block in blocks for task in block]
        groups = len(blocks) if share_images(tasks) else len(tasks)
        source = None if fed else tasks[0].source
        return cls(len(tasks), groups, num_images, 0 if source is None else len(source), fed)

    def num_bytes(
        self,
        network: Network,
        scores: Mapping[str, ScoreForm],
        num_values: int,
        dtype: torch.dtype,
    ) -> int:
        """Return an upper bound of the bytes that a step of all tasks needs on the device.

        The images of the data set are not counted.

        Args:
            network: the fixed network.
            scores: a mapping from name to the form of a task's scores.
            num_values: P, the number of values of an image.
            dtype: type of the matrix products.
        """
        shown = self.images * num_values * (4 + 3 * dtype.itemsize + 2 * bool(self.chosen))
        activations = _VALUES_PER_ACTIVATION * network.num_activations * self.images
        gains = _VALUES_PER_GAIN * num_gains(network) * max(4, dtype.itemsize)
        untrained = sum(form.num_bytes for form in scores.values() if not form.trained)
        own = shown + activations * max(4, dtype.itemsize) + gains + untrained + 8 * self.chosen
        return self.tasks * own


class AutogradBlocks(ResidentBlocks[AutogradForm]):
    """The tensors of some blocks; see ResidentBlocks.

    Args:
        network: the fixed network.
        method: the mask finder. Method.has_equal_steps must be true.
        recipe: the settings of the training.
        weights: the fixed weights, on the device of all tensors, in the type of the products.
        scores: a mapping from name to the form of a task's scores.
        data: the training images.
        pixels: (M, P) the training images on the device; None if the host makes all images.
        form: the numbers that determine the shapes of the tensors.
        graphs: whether a CUDA graph repeats the steps on a CUDA device.
    """

    def __init__(
        self,
        network: Network,
        method: Method,
        recipe: Recipe,
        weights: Weights,
        scores: Mapping[str, ScoreForm],
        data: ImageSet,
        pixels: UInt8[Tensor, "M P"] | None,
        form: AutogradForm,
        *,
        graphs: bool,
    ) -> None:
        some = next(iter(weights.values()))
        self._dtype, device = some.dtype, some.device
        accurate = torch.promote_types(self._dtype, torch.float32)
        super().__init__(recipe, form, accurate, device, graphs=graphs)
        self._network, self._method, self._recipe = network, method, recipe
        self._weights, self._pixels = weights, pixels
        self._scores = {
            name: torch.empty((form.tasks, *own.shape), dtype=own.dtype, device=device)
            for name, own in scores.items()
        }
        self._states = {
            name: self._first_state(self._scores[name])
            for name, own in scores.items()
            if own.trained
        }
        self._tensors = {tensor.name: tensor for tensor in network.tensors}
        self._floats = first_statistics(network, form.tasks, accurate, device)
        self._sources: Int64[Tensor, "T 1 S"] | None = None
        if form.chosen:
            shape = form.tasks, 1, form.chosen
            self._sources = torch.empty(shape, dtype=torch.int64, device=device)
        self._shape = data.shape
        self._factor, self._offset = factor_and_offset(data.mean, data.std, device)
        self._labels: Int64[Tensor, " M"] | None = None
        # The images of a step that the host has made
        self._fed: UInt8[Tensor, "T N ..."] | None = None
        self._fed_labels = torch.empty(form.tasks, form.images, dtype=torch.int64, device=device)
        if form.fed:
            of_step = form.tasks, form.images, *data.shape
            self._fed = torch.empty(of_step, dtype=torch.uint8, device=device)
        else:
            self._labels = torch.from_numpy(data.labels.astype(np.int64)).to(device)

    def begin(
        self,
        tasks: Sequence[Task],
        starts: Sequence[Mapping[str, np.ndarray]],
        shared: Shared | None,
        seed: int,
    ) -> None:
        """Write the tasks' sources and first scores, and the first state of everything else.

        Args:
            tasks: the T tasks.
            starts: for each task, a mapping from name to first scores.
            shared: data from earlier tasks; see Trainer.stages.
            seed: the run's seed.
        """
        self._shared = shared
        ids = [task.task_id for task in tasks]
        self._progress = Progress(0, self._recipe.steps, ids, seed)
        for name, score in self._scores.items():
            score.copy_(torch.from_numpy(np.stack([start[name] for start in starts])))
        for name, state in self._states.items():
            self._restart(self._scores[name], state)
        for spec in self._network.float_specs():
            self._floats[spec.name].fill_(spec.initial)
        if self._sources is not None:
            sources = np.stack([task.source for task in tasks if task.source is not None])
            self._sources.copy_(torch.from_numpy(sources.astype(np.int64))[:, None, :])

    def feed(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        """Copy the images of the next step to the device.

        Args:
            pixels: (T, N, ...) the images, as the tasks show them.
            labels: (T, N) their labels.
        """
        assert self._fed is not None
        self._fed.copy_(torch.from_numpy(pixels))
        self._fed_labels.copy_(torch.from_numpy(labels))

    def states(self) -> list[TaskState]:
        """Make the states of all tasks from their scores, with the floats of the network."""
        return with_floats(self._method.end(self._network, self._scores), self._floats)

    def advance(self) -> None:
        """Take one training step of all tasks.

        What the finder does after a step may differ from step to step, so no graph repeats it.
        """
        super().advance()
        self._progress = replace(self._progress, step=self._progress.step + 1)
        self._method.after_step(self._network, self._scores, self._shared, self._progress)

    def _step(self) -> None:
        images, labels = self._batch()
        leaves = {name: self._scores[name].detach().requires_grad_() for name in self._states}
        with torch.enable_grad():
            made = self._method.gains(self._network, {**self._scores, **leaves})
            gains = {name: gain.to(self._dtype) for name, gain in made.items()}
            given = self._network, self._weights, gains, self._floats, images, labels
            loss = tracked_loss(*given, self._recipe.temperature)
        # A score that does not change the loss gets no gradient, and stays as it is.
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        gradients: dict[str, Tensor | None] = dict(zip(leaves, found, strict=True))
        tables = self.tables
        constants = tables.constants.index_select(0, tables.step)[0].unbind()
        for name, gradient in gradients.items():
            if gradient is None:
                continue
            score, tensor = self._scores[name], self._tensors.get(name)
            decay = None if tensor is None else self._method.decay(tensor, score)
            own = gradient if decay is None else gradient + decay
            self._optimizer.move(score, self._states[name], own, constants)
        tables.step.add_(1)

    def _batch(self) -> tuple[Float[Tensor, "T N ..."], Int64[Tensor, "T N"]]:
        """Return the normalised images of the current step, and their labels."""
        if self._fed is not None:
            return self._normalised(self._fed), self._fed_labels
        assert self._pixels is not None
        assert self._labels is not None
        index = self.tables.index.index_select(0, self.tables.step)[0]
        labels = self._labels.index_select(0, index.flatten()).view(index.shape)
        shown = self._of_tasks(self._pixels.index_select(0, index.flatten()).view(*index.shape, -1))
        if self._sources is not None:
            # The additional last pixel is black. Channels may have the same source; see Task.
            parts = shown.reshape(self.form.tasks, -1, self.form.chosen)
            padded = torch.nn.functional.pad(parts, (0, 1))
            shown = padded.gather(2, self._sources.expand(parts.shape))
        images = shown.reshape(self.form.tasks, self.form.images, *self._shape)
        return self._normalised(images), self._of_tasks(labels)

    def _normalised(self, pixels: UInt8[Tensor, "T N ..."]) -> Float[Tensor, "T N ..."]:
        """Do the work of data.normalise, without a copy from the host."""
        values = pixels.to(torch.float32).mul_(self._factor).sub_(self._offset)
        return values.to(self._dtype)
