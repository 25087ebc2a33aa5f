"""Train many blocks of tasks side by side on one device, with all data in the device's memory.

A GPU needs hundreds of tasks to be busy, but a block decides which tasks share their batches, and
so it decides the bits of the masks. Therefore blocks keep their own batches, and stand side by side
in the same tensors. During the steps, nothing is copied between host and device, and the host never
waits. On a GPU, one CUDA graph holds the launches of a step.

Shape letters: T tasks of all blocks, G groups of tasks that have the same images, N images of a
batch, O outputs and I inputs of a layer, R bytes of a packed row, Z steps of a table.
"""

import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32, Integer, UInt8
from torch import Tensor

from supsup_core.data import ImageSet
from supsup_core.kernels.gpu.choose import triton_works
from supsup_core.methods.protocol import layout_of, uniform_bound
from supsup_core.networks.mlp import draw_signs
from supsup_core.states.layout import PackedState, StateLayout, TaskState
from supsup_core.states.resident import free_bytes
from supsup_core.streams import Role, key
from supsup_core.tasks.protocol import Task
from supsup_core.training.base import part_of
from supsup_core.training.batches import batch_size, task_batches
from supsup_core.training.blocks import MLPTrainer
from supsup_core.training.protocol import Measured, OnStep
from supsup_core.training.resident_measure import ResidentMeasure
from supsup_core.training.resident_steps import PART_BYTES, Feed, PlainSteps, ResidentLayer

# Number of steps of the tables of image indices and constants. While the device works on the steps
# of a table, the host draws the order of the images for the next steps.
_TABLE_STEPS = 128

# Share of the free memory that the tensors of blocks may take, and the temporary tensors beside
# them: so many parts of PART_BYTES.
_SHARE = 0.8
_PARTS = 6


@dataclass(frozen=True)
class _Form:
    """What fixes the shapes of all tensors of some blocks.

    Attributes:
        tasks: T, number of tasks of all blocks.
        groups: G, number of groups of tasks that have the same images.
        images: N, number of images of a batch.
        chooses: whether the tasks choose pixels, so that every group has its own pixels.
    """

    tasks: int
    groups: int
    images: int
    chooses: bool


class Resident:
    """The tensors of some blocks, and the launches of a step.

    Args:
        trainer: the trainer whose blocks these are.
        form: the shapes.
        images: (M, P) pixels of the training images, on the device.
        labels: (M,) classes of the training images, on the device.

    Attributes:
        layers: the layers of all tasks.
        feed: the data that the steps read.
    """

    def __init__(self, trainer: "ResidentTrainer", form: _Form, data: "ResidentData") -> None:
        self.form, self._steps, self._scale = form, trainer.parts, trainer.scale
        device, dtype = data.images.device, trainer.dtype
        accurate = torch.promote_types(dtype, torch.float32)
        recipe, network = trainer.recipe, trainer.network
        optimizer = recipe.make_optimizer()
        num_constants = len(optimizer.constants(recipe.learning_rate, 1))
        self.num_steps = max(1, min(recipe.steps, _TABLE_STEPS))
        num_pixels = data.images.shape[1]

        def empty(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self.feed = Feed(
            data.images,
            data.labels,
            data.mean,
            data.std,
            empty(self.num_steps, form.groups, form.images, dtype=torch.int32),
            empty(self.num_steps, num_constants, dtype=accurate),
            torch.zeros(1, dtype=torch.int32, device=device),
            empty(form.groups, num_pixels, dtype=torch.int32) if form.chooses else None,
        )
        self._images = empty(form.groups, form.images, num_pixels)
        self.layers, self._sent, self._deltas = [], [], []
        for tensor in network.tensors:
            shape = (form.tasks, *tensor.shape)
            state = optimizer.begin(torch.ones((1, 1, 1), dtype=accurate))
            self.layers.append(
                ResidentLayer(
                    tensor,
                    trainer.method,
                    optimizer,
                    empty(*shape, dtype=accurate),
                    tuple(empty(*shape, dtype=part.dtype) for part in state),
                    empty(*shape, dtype=self._steps.masked_dtype(dtype)),
                )
            )
            self._sent.append(empty(form.tasks, tensor.shape[0], form.images))
            self._deltas.append(empty(form.tasks, tensor.shape[0], form.images))
        self._advance: Callable[[], None] = self._first_advance
        self.num_bytes = sum(tensor.nbytes for tensor in self._tensors())

    def _tensors(self) -> Iterator[Tensor]:
        """Yield all tensors of these blocks, without the images of the data set."""
        yield from (self.feed.table, self.feed.constants, self.feed.step, self._images)
        yield from (*self._sent, *self._deltas)
        if self.feed.sources is not None:
            yield self.feed.sources
        for layer in self.layers:
            yield from (layer.scores, *layer.state, layer.masked)

    def advance(self) -> None:
        """Take one training step of all tasks."""
        self._advance()

    def _first_advance(self) -> None:
        """Take a step, then capture the launches of a step as a CUDA graph on a CUDA device.

        The first step compiles or loads the kernels, which a capture may not do.
        """
        self._launch()
        self._advance = self._launch
        if self._images.device.type == "cuda":
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._launch()
            self._advance = graph.replay

    def _launch(self) -> None:
        feed, steps, last = self.feed, self._steps, len(self.layers) - 1
        steps.pick(feed, self._images)
        received = [self._images.transpose(1, 2), *self._sent[:-1]]
        for i, layer in enumerate(self.layers):
            steps.forward(layer.masked, received[i], self._sent[i], relu=i < last)
        delta = self._sent[-1]
        steps.logit_gradient(delta, feed, self._scale)
        for i in reversed(range(len(self.layers))):
            layer, sent = self.layers[i], delta
            if i:
                delta = self._deltas[i - 1]
                steps.back(layer.masked, sent, self._sent[i - 1], delta)
            steps.learn(layer, sent, received[i], feed)
        feed.step.add_(1)


@dataclass(frozen=True, eq=False)  # == of tensors gives a tensor, not one bool
class ResidentData:
    """The training images on a device.

    Attributes:
        images: (M, P) pixels.
        labels: (M,) classes.
        mean: mean of pixel / 255.
        std: standard deviation of pixel / 255.
    """

    images: UInt8[Tensor, "M P"]
    labels: Int32[Tensor, " M"]
    mean: float
    std: float

    @classmethod
    def of(cls, data: ImageSet, device: torch.device) -> "ResidentData":
        """Copy an image set with one channel to a device."""
        labels = torch.from_numpy(data.labels.astype(np.int32)).to(device)
        return cls(torch.from_numpy(data.flat).to(device), labels, data.mean[0], data.std[0])


def steps_for(device: torch.device, dtype: torch.dtype) -> PlainSteps:
    """Return the parts of a training step: in Triton if it works on the device, else in torch.

    Args:
        device: the device of all computations.
        dtype: the type of the matrix products.
    """
    if dtype not in (torch.float32, torch.bfloat16) or not triton_works(device):
        return PlainSteps()
    from supsup_core.training.triton_steps import TritonSteps

    return TritonSteps()


class ResidentTrainer(MLPTrainer):
    """A trainer of several blocks side by side. The arguments are those of MLPTrainer.

    Tasks that change images, as rotations with interpolation do, are trained by MLPTrainer, whose
    host makes the images of each step.

    Attributes:
        parts: the parts of a step, in Triton or in torch.
    """

    def __init__(self, *args: Any, parts: PlainSteps | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.parts = parts or steps_for(self._device, self._dtype)
        self._resident: Resident | None = None
        self._limit = sys.maxsize  # most blocks at a time, after the memory was too small
        self._copied: ResidentData | None = None
        self._layout: StateLayout = layout_of(self._network, self._method)
        self.network, self.method, self.recipe = self._network, self._method, self._recipe
        self.data, self.seed, self.dtype = self._data, self._seed, self._dtype
        self.scale = prod(self._network.constants) / self._recipe.temperature

    def stages(
        self,
        tasks: Sequence[Task],
        after: Collection[int],
        shared: Any = None,
        on_step: OnStep | None = None,
    ) -> Iterator[tuple[list[TaskState], Any]]:
        """Train a block of tasks; see Trainer.stages.

        `on_step` is called when the device has got a step, which may be before the step is done.
        """
        if any(task.change is not None for task in tasks):
            yield from super().stages(tasks, after, shared, on_step)
            return
        for states in self._stages([tasks], after, on_step):
            yield states, shared

    def side_by_side(
        self, blocks: Sequence[Sequence[Task]], on_step: OnStep | None = None
    ) -> list[TaskState]:
        """Train several blocks at the same time; see Trainer.side_by_side.

        Blocks that differ in their number of tasks or images train one group after another.
        """
        if any(task.change is not None for block in blocks for task in block):
            return super().side_by_side(blocks, on_step)
        shapes = [(len(block), self._batch_size(block)) for block in blocks]
        states: list[TaskState] = []
        for _, group in groupby(range(len(blocks)), key=shapes.__getitem__):
            waiting = [blocks[i] for i in group]
            while waiting:
                size = min(len(waiting), self._most_blocks(waiting[0]))
                share = len(states) / len(blocks[0]) / len(blocks), size / len(blocks)
                found = self._trained(waiting[:size], part_of(on_step, share, self.recipe.steps))
                if found is not None:
                    states, waiting = states + found, waiting[size:]
        return states

    def _trained(
        self, blocks: Sequence[Sequence[Task]], on_step: OnStep | None
    ) -> list[TaskState] | None:
        """Train blocks of one shape; None if they do not fit into the memory of the device.

        Then fewer blocks will be trained at the same time.
        """
        try:
            (found,) = self._stages(blocks, [self._recipe.steps], on_step)
        except torch.OutOfMemoryError:
            if len(blocks) == 1:
                raise
        else:
            return found
        self._resident, self._limit = None, len(blocks) // 2
        torch.cuda.empty_cache()
        warnings.warn(
            f"the device must have memory for {len(blocks)} blocks of {len(blocks[0])} tasks, got "
            f"too little: training goes on with {self._limit} blocks at a time; another program "
            "may use the same device",
            RuntimeWarning,
            stacklevel=2,
        )
        return None

    def _most_blocks(self, block: Sequence[Task]) -> int:
        """Return how many blocks fit into the free memory of the device, at least 1."""
        if self._device.type != "cuda":
            return self._limit
        held = self._resident.num_bytes if self._resident is not None else 0
        free = int(_SHARE * (free_bytes(self._device) + held)) - _PARTS * PART_BYTES
        one, two = (self.resident_bytes([block] * num) for num in (1, 2))
        return max(1, min(self._limit, 1 + (free - one) // (two - one)))

    def resident_bytes(self, blocks: Sequence[Sequence[Task]]) -> int:
        """Compute the memory of the tensors that stay on the device while blocks are trained.

        The images of the data set are not counted.
        """
        form = self._form(blocks)
        nothing = torch.device("meta")  # tensors of this device have shapes and no memory
        empty = ResidentData(
            torch.empty((1, self.data.flat.shape[1]), dtype=torch.uint8, device=nothing),
            torch.empty(1, dtype=torch.int32, device=nothing),
            self.data.mean[0],
            self.data.std[0],
        )
        return Resident(self, form, empty).num_bytes

    def _stages(
        self, blocks: Sequence[Sequence[Task]], after: Collection[int], on_step: OnStep | None
    ) -> Iterator[list[TaskState]]:
        """Train blocks of one shape, and yield the states of all tasks, in order."""
        tasks = [task for block in blocks for task in block]
        columns = self._columns(tasks)
        form = self._form(blocks)
        resident = self._make(form)
        self._begin(resident, tasks, columns)
        orders = [task_batches(b, self._data, self._recipe, self._seed) for b in blocks]
        batches = _joined(orders, form.groups)
        for step in range(self._recipe.steps + 1):
            if step in after:
                yield self._states(resident, columns)
            if step == self._recipe.steps:
                return
            if step % resident.num_steps == 0:
                self._fill(resident, batches, step)
            resident.advance()
            if on_step is not None:
                on_step(step + 1)

    def measure_each(self, tasks: Sequence[Task], states: Sequence[TaskState]) -> list[Measured]:
        """Measure the state of each task; see Trainer.measure_each."""
        if isinstance(self._measure, ResidentMeasure):
            return self._measure.each(tasks, states)
        return super().measure_each(tasks, states)

    def _batch_size(self, block: Sequence[Task]) -> int:
        return batch_size(block, self._data, self._recipe)

    def _form(self, blocks: Sequence[Sequence[Task]]) -> _Form:
        """Return the shapes of the tensors of blocks of one shape."""
        tasks = [task for block in blocks for task in block]
        shares = all(task.classes is None for task in tasks)
        chooses = self._columns(tasks) is None and tasks[0].source is not None
        num_groups = len(blocks) if shares and not chooses else len(tasks)
        return _Form(len(tasks), num_groups, self._batch_size(blocks[0]), chooses)

    def _columns(self, tasks: Sequence[Task]) -> Int32[np.ndarray, "T P"] | None:
        """Return the sources of permutations whose columns are permuted; None for other tasks."""
        if not self._method.reorders or not all(task.is_permutation for task in tasks):
            return None
        return np.stack([task.source for task in tasks if task.source is not None]).astype(np.int32)

    def _make(self, form: _Form) -> Resident:
        """Return the tensors for a form: those of the blocks before if their form is the same."""
        if self._copied is None:
            self._copied = ResidentData.of(self._data, self._device)
        if self._resident is None or self._resident.form != form:
            self._resident = None  # frees the old tensors first
            self._resident = Resident(self, form, self._copied)
        return self._resident

    def _begin(self, resident: Resident, tasks: Sequence[Task], columns: np.ndarray | None) -> None:
        """Write the first scores, the optimiser's first state and the first masked signs."""
        if resident.feed.sources is not None:
            sources = np.stack([task.source for task in tasks if task.source is not None])
            resident.feed.sources.copy_(torch.from_numpy(sources.astype(np.int32)))
        places = None if columns is None else torch.from_numpy(columns).to(self._device)
        starts: list[dict[str, np.ndarray]] = []
        if not self._method.draws_uniformly:
            starts = [self._method.begin(self._network, t.task_id, self._seed) for t in tasks]
        for i, layer in enumerate(resident.layers):
            own = places if i == 0 else None
            if starts:
                for score, start in zip(layer.scores, starts, strict=True):
                    score.copy_(torch.from_numpy(start[layer.tensor.name]))
                _reorder(layer, layer.scores, own)
            else:
                keys = [key(self._seed, Role.SCORES, task.task_id, i) for task in tasks]
                bound = uniform_bound(layer.tensor)
                self.parts.draw(np.stack(keys), bound, own, layer.scores)
            signs = draw_signs(layer.tensor.shape, self._seed, i)
            on_device = torch.from_numpy(signs).to(self._device, layer.scores.dtype)
            for part in layer.parts():
                shown = on_device.expand(layer.scores[part].shape).contiguous()
                if own is not None:
                    shown = torch.empty_like(shown).scatter_(2, _wide(own[part], shown), shown)
                for to, value in zip(layer.state, layer.optimizer.begin(shown), strict=True):
                    to[part].copy_(value)
            layer.choose()

    def _fill(self, resident: Resident, batches: Iterator[np.ndarray], done: int) -> None:
        """Copy the image indices and the optimiser's constants of the next steps to the device."""
        num = min(resident.num_steps, self._recipe.steps - done)
        table = np.stack(list(islice(batches, num)))
        _send(table, resident.feed.table[:num])
        optimizer = resident.layers[0].optimizer
        constants = [
            optimizer.constants(self._recipe.learning_rate_at(step), step + 1)
            for step in range(done, done + num)
        ]
        _send(np.array(constants), resident.feed.constants[:num])
        resident.feed.step.zero_()

    def _states(self, resident: Resident, columns: np.ndarray | None) -> list[TaskState]:
        """Pack the masks of all tasks on the device, and copy the rows to the host."""
        num_tasks, layout = resident.form.tasks, self._layout
        places = None if columns is None else torch.from_numpy(columns).to(self._device)
        rows = torch.zeros((num_tasks, layout.row_bytes), dtype=torch.uint8, device=self._device)
        for i, (layer, plane) in enumerate(zip(resident.layers, layout.planes, strict=True)):
            for part in layer.parts():
                kept = layer.masked[part] != 0
                if i == 0 and places is not None:
                    kept = kept.gather(2, _wide(places[part], kept))
                packed = _packed(kept.flatten(1))
                rows[part, plane.byte_offset : plane.byte_offset + packed.shape[1]] = packed
        return [PackedState(layout, row) for row in rows.cpu().numpy()]


def _send(values: np.ndarray, to: Tensor) -> None:
    """Copy an array to the device, without waiting until the device has done earlier work."""
    on_host = torch.from_numpy(values).to(to.dtype)
    if to.device.type == "cuda":
        on_host = on_host.pin_memory()
    to.copy_(on_host, non_blocking=True)


def _joined(
    orders: Sequence[Iterator[Integer[np.ndarray, "B N"]]], num_groups: int
) -> Iterator[Int32[np.ndarray, "G N"]]:
    """Yield, for each step, one array with the image indices of every group.

    A group is a set of tasks that have the same images.

    Args:
        orders: for each block, the image indices of its tasks for each step.
        num_groups: number of groups. It is the number of blocks if the tasks of a block have the
            same images, and the number of tasks otherwise.
    """
    shares = num_groups == len(orders)
    while True:
        now = [next(order) for order in orders]
        yield np.concatenate([index[:1] for index in now] if shares else now).astype(np.int32)


def _wide(columns: Tensor, like: Tensor) -> Tensor:
    """View column numbers (T, I) as an index (T, O, I) for gather and scatter."""
    return columns.long()[:, None, :].expand(like.shape)


def _reorder(layer: ResidentLayer, values: Tensor, columns: Tensor | None) -> None:
    """Move the columns of (T, O, I) from stored order to training order, in place."""
    if columns is None:
        return
    for part in layer.parts():
        stored = values[part].clone()
        values[part].scatter_(2, _wide(columns[part], stored), stored)


def _packed(bits: Tensor) -> UInt8[Tensor, "T _"]:
    """Pack bits (T, F) into bytes, the first bit into the lowest bit of a byte."""
    padded = torch.nn.functional.pad(bits.to(torch.uint8), (0, -bits.shape[1] % 8))
    powers = 2 ** torch.arange(8, dtype=torch.uint8, device=bits.device)
    return (padded.view(len(bits), -1, 8) * powers).sum(dim=2, dtype=torch.uint8)
