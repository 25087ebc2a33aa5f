"""Train many blocks of tasks at the same time on one device, with all data in the device's memory.

A GPU needs hundreds of tasks to be busy. But the tasks of a block share their batches, so a larger
block would give other masks. Therefore each block keeps its own batches, and the same tensors hold
the tasks of many blocks. During the steps, nothing is copied between host and device, and the host
never waits. On a GPU, a CUDA graph starts all kernels of a step at once.

Shape letters: T tasks of all blocks, G groups of tasks that have the same images, N images of a
batch, O outputs and I inputs of a layer, R bytes of a packed row, Z steps of a table.
"""

import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby, islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int32, Integer, UInt8
from torch import Tensor

from supsup_core.kernels.gpu.choose import triton_works
from supsup_core.methods.protocol import KeepMethod, Shared, layout_of, uniform_bound
from supsup_core.networks.mlp import draw_signs
from supsup_core.states.layout import PackedState, StateLayout, TaskState
from supsup_core.states.resident import free_bytes
from supsup_core.streams import Role, key
from supsup_core.tasks.protocol import Task
from supsup_core.training.base import part_of
from supsup_core.training.batches import Batch, batch_size, task_batches
from supsup_core.training.blocks import MLPTrainer
from supsup_core.training.protocol import Measured, OnStep
from supsup_core.training.resident_measure import ResidentMeasure
from supsup_core.training.resident_steps import PART_BYTES, PlainSteps
from supsup_core.training.resident_tensors import BlocksForm, Resident, ResidentData

# The tensors of blocks may take the fraction _SHARE of the free memory, minus _PARTS * PART_BYTES
# bytes for the largest temporary tensors.
_SHARE = 0.8
_PARTS = 6


def steps_for(device: torch.device, dtype: torch.dtype) -> PlainSteps:
    """Return the parts of a training step, in Triton or in torch.

    They are in Triton if Triton works on the device and supports the dtype.

    Args:
        device: the device of all computations.
        dtype: the type of the matrix products.
    """
    if dtype not in (torch.float32, torch.bfloat16) or not triton_works(device):
        return PlainSteps()
    from supsup_core.training.triton_steps import TritonSteps

    return TritonSteps()


class ResidentTrainer(MLPTrainer):
    """A trainer of several blocks at the same time. The arguments are those of MLPTrainer.

    Tasks that change images, as rotations with interpolation do, and tasks that renumber their
    labels are trained by MLPTrainer, whose host makes the images and labels of each step.

    Attributes:
        parts: the parts of a step, in Triton or in torch.
    """

    _method: KeepMethod

    def __init__(self, *args: Any, parts: PlainSteps | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.parts = parts or steps_for(self._device, self._dtype)
        self._resident: Resident | None = None
        # Largest number of blocks at a time. It is set if the memory was too small.
        self._limit = sys.maxsize
        self._copied: ResidentData | None = None
        self._layout: StateLayout = layout_of(self._network, self._method)

    def stages(
        self,
        tasks: Sequence[Task],
        after: Collection[int],
        shared: Shared | None = None,
        on_step: OnStep | None = None,
        batches: Iterator[Batch] | None = None,
    ) -> Iterator[tuple[list[TaskState], Shared]]:
        """Train a block of tasks; see Trainer.stages.

        `on_step` is called after the host has given a step to the device. The device may finish
        the step later.
        """
        if batches is not None or any(map(_needs_host, tasks)):
            yield from super().stages(tasks, after, shared, on_step, batches)
            return
        for states in self._stages([tasks], after, on_step, shared):
            yield states, {}

    def side_by_side(
        self, blocks: Sequence[Sequence[Task]], on_step: OnStep | None = None
    ) -> list[TaskState]:
        """Train several blocks at the same time; see Trainer.side_by_side.

        Successive blocks with equal numbers of tasks and images form a group. The groups are
        trained one after another.
        """
        if any(_needs_host(task) for block in blocks for task in block):
            return super().side_by_side(blocks, on_step)
        shapes = [(len(block), self._batch_size(block)) for block in blocks]
        states: list[TaskState] = []
        for _, group in groupby(range(len(blocks)), key=shapes.__getitem__):
            waiting = [blocks[i] for i in group]
            while waiting:
                size = min(len(waiting), self._most_blocks(waiting[0]))
                share = len(states) / len(blocks[0]) / len(blocks), size / len(blocks)
                found = self._trained(waiting[:size], part_of(on_step, share, self._recipe.steps))
                if found is not None:
                    states, waiting = states + found, waiting[size:]
        return states

    def _trained(
        self, blocks: Sequence[Sequence[Task]], on_step: OnStep | None
    ) -> list[TaskState] | None:
        """Train blocks that have the same shape.

        Return None if they do not fit into the memory of the device. After that, `_most_blocks`
        returns at most half as many blocks.
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
            f"too little: training continues with {self._limit} blocks at a time; another program "
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
        """Compute how many bytes of device memory the tensors of blocks take during training.

        The images of the data set are not counted.
        """
        form = self._form(blocks)
        nothing = torch.device("meta")  # tensors of this device have shapes and no memory
        empty = ResidentData(
            torch.empty((1, self._data.flat.shape[1]), dtype=torch.uint8, device=nothing),
            torch.empty(1, dtype=torch.int32, device=nothing),
            self._data.mean[0],
            self._data.std[0],
        )
        return self._new(form, empty).num_bytes

    def _stages(
        self,
        blocks: Sequence[Sequence[Task]],
        after: Collection[int],
        on_step: OnStep | None,
        shared: Shared | None = None,
    ) -> Iterator[list[TaskState]]:
        """Train blocks that have the same shape, and yield the states of all tasks, in order.

        If data from earlier tasks are given, there is one block.
        """
        tasks = [task for block in blocks for task in block]
        columns = self._columns(tasks)
        form = self._form(blocks)
        resident = self._make(form)
        self._begin(resident, tasks, columns, shared)
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

    def measure_each(
        self, tasks: Sequence[Task], states: Sequence[TaskState], shared: Shared | None = None
    ) -> list[Measured]:
        """Measure the state of each task; see Trainer.measure_each."""
        if isinstance(self._measure, ResidentMeasure):
            return self._measure.each(tasks, states)
        return super().measure_each(tasks, states, shared)

    def _batch_size(self, block: Sequence[Task]) -> int:
        return batch_size(block, self._data, self._recipe)

    def _form(self, blocks: Sequence[Sequence[Task]]) -> BlocksForm:
        """Return the numbers that determine the tensors of blocks that have the same shape."""
        tasks = [task for block in blocks for task in block]
        shares = all(task.classes is None for task in tasks)
        chooses = self._columns(tasks) is None and tasks[0].source is not None
        num_groups = len(blocks) if shares and not chooses else len(tasks)
        return BlocksForm(len(tasks), num_groups, self._batch_size(blocks[0]), chooses)

    def _columns(self, tasks: Sequence[Task]) -> Int32[np.ndarray, "T P"] | None:
        """Return the tasks' sources if the columns of the first layer are permuted.

        Otherwise return None.
        """
        if not self._method.reorders or not all(task.is_permutation for task in tasks):
            return None
        return np.stack([task.source for task in tasks if task.source is not None]).astype(np.int32)

    def _make(self, form: BlocksForm) -> Resident:
        """Return tensors for a form. If the form has not changed, use the earlier tensors again."""
        if self._copied is None:
            self._copied = ResidentData.of(self._data, self._device)
        if self._resident is None or self._resident.form != form:
            self._resident = None  # frees the old tensors first
            self._resident = self._new(form, self._copied)
        return self._resident

    def _new(self, form: BlocksForm, data: ResidentData) -> Resident:
        given = self._network, self._method, self._recipe, self._dtype, self.parts
        return Resident(*given, form, data)

    def _begin(
        self,
        resident: Resident,
        tasks: Sequence[Task],
        columns: np.ndarray | None,
        shared: Shared | None,
    ) -> None:
        """Write the first scores, the optimiser's first state and the first masked signs."""
        if resident.feed.sources is not None:
            sources = np.stack([task.source for task in tasks if task.source is not None])
            resident.feed.sources.copy_(torch.from_numpy(sources.astype(np.int32)))
        places = None if columns is None else torch.from_numpy(columns).to(self._device)
        starts: list[dict[str, np.ndarray]] = []
        if shared or not self._method.draws_uniformly:
            starts = self._starts(tasks, shared)
        for i, layer in enumerate(resident.layers):
            own = places if i == 0 else None
            if starts:
                for score, start in zip(layer.scores, starts, strict=True):
                    score.copy_(torch.from_numpy(start[layer.tensor.name]))
                for part in layer.parts():
                    layer.scores[part] = _in_training_order(layer.scores[part], own, part)
            else:
                keys = [key(self._seed, Role.SCORES, task.task_id, i) for task in tasks]
                bound = uniform_bound(layer.tensor)
                self.parts.draw(np.stack(keys), bound, own, layer.scores)
            signs = draw_signs(layer.tensor.shape, self._seed, i)
            on_device = torch.from_numpy(signs).to(self._device, layer.scores.dtype)
            for part in layer.parts():
                shown = on_device.expand(layer.scores[part].shape)
                shown = _in_training_order(shown, own, part)
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


def _needs_host(task: Task) -> bool:
    """Return whether a task has images or labels that the host must make for each step."""
    return task.change is not None or task.renumbers


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
    """View column indices (T, I) as an index tensor (T, O, I) for gather and scatter."""
    return columns.long()[:, None, :].expand(like.shape)


def _in_training_order(
    values: Float[Tensor, "B O I"], columns: Int32[Tensor, "T I"] | None, part: slice
) -> Float[Tensor, "B O I"]:
    """Move columns from stored order to training order.

    Args:
        values: values of the B tasks of a part.
        columns: for each task and each input of the layer, the index of the input's column in
            training order. None if the order does not change.
        part: the part's range of tasks.
    """
    if columns is None:
        return values
    return torch.empty_like(values, memory_format=torch.contiguous_format).scatter_(
        2, _wide(columns[part], values), values
    )


def _packed(bits: Tensor) -> UInt8[Tensor, "T _"]:
    """Pack bits (T, F) into bytes, the first bit into the lowest bit of a byte."""
    padded = torch.nn.functional.pad(bits.to(torch.uint8), (0, -bits.shape[1] % 8))
    powers = 2 ** torch.arange(8, dtype=torch.uint8, device=bits.device)
    return (padded.view(len(bits), -1, 8) * powers).sum(dim=2, dtype=torch.uint8)
