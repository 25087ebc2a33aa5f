"""Train many blocks of tasks at the same time on one device, with all data in the device's memory.

A GPU needs hundreds of tasks to be busy. But the tasks of a block share their batches, so a larger
block would give other masks. Therefore each block keeps its own batches, and the same tensors hold
the tasks of many blocks. During the steps, nothing is copied between host and device, and the host
never waits. On a GPU, a CUDA graph starts all kernels of a step at once.

Shape letters: T tasks of all blocks, G groups of tasks that have the same images, N images of a
batch, O outputs and I inputs of a layer, R bytes of a packed row, Z steps of a table.
"""

import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32

from supsup_core.kernels.gpu.choose import triton_works
from supsup_core.kernels.gpu.memory import free_bytes
from supsup_core.methods.first_scores import uniform_bound
from supsup_core.methods.protocol import Shared, layout_of
from supsup_core.networks.mlp import draw_signs
from supsup_core.states.layout import PackedState, StateLayout, TaskState
from supsup_core.streams import Role, key
from supsup_core.tasks.protocol import Task
from supsup_core.training.blocks import MLPTrainer
from supsup_core.training.protocol import Measured, OnStep
from supsup_core.training.resident_feed import steps_of
from supsup_core.training.resident_measure import ResidentMeasure
from supsup_core.training.resident_memory import TrainingMemory, training_memory
from supsup_core.training.resident_order import in_training_order, packed_rows
from supsup_core.training.resident_steps import PlainSteps
from supsup_core.training.resident_tensors import (
    BlocksForm,
    Resident,
    ResidentData,
    reorders_columns,
)
from supsup_core.training.side_by_side import SideBySideTrainer


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


class ResidentTrainer(SideBySideTrainer[BlocksForm, Resident], MLPTrainer):
    """A trainer of several blocks at the same time. The arguments are those of MLPTrainer.

    Tasks that change images, as rotations with interpolation do, and tasks that renumber their
    labels are trained by MLPTrainer, whose host makes the images and labels of each step.

    If the kernels in Triton do not work for the shapes of the first block, the trainer warns once,
    and trains with torch.

    Attributes:
        parts: the parts of a step, in Triton or in torch.
    """

    def __init__(
        self, *args: Any, parts: PlainSteps | None = None, graphs: bool = True, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.parts, self.graphs = parts or steps_for(self._device, self._dtype), graphs
        self._tried = parts is not None  # whether `parts` has taken a step or must not be replaced
        self._copied: ResidentData | None = None
        self._layout: StateLayout = layout_of(self._network, self._method)

    def _most_blocks(self, block: Sequence[Task]) -> int:
        """Return how many blocks fit into the free memory of the device, at least 1."""
        if self._device.type != "cuda":
            return self._limit
        held = sum(kept.num_bytes for kept in (self._kept, self._copied) if kept is not None)
        images = self._data.flat.nbytes + 4 * len(self._data.labels)
        fitting = self.memory(block).most_blocks(free_bytes(self._device) + held - images)
        return min(self._limit, fitting)

    def memory(self, block: Sequence[Task]) -> TrainingMemory:
        """Compute the memory that blocks like this one take, without the images of the data set."""
        given = self._network, self._method, self._recipe, self._dtype, self.parts
        return training_memory(*given, block, self._shape(block)[1])

    def _stages(
        self,
        blocks: Sequence[Sequence[Task]],
        after: Collection[int],
        on_step: OnStep | None,
        shared: Shared | None = None,
    ) -> Iterator[list[TaskState]]:
        """Train blocks that have the same shape; see SideBySideTrainer."""
        self._try_parts(blocks[0], shared)
        tasks = [task for block in blocks for task in block]
        columns = self._columns(tasks)
        resident, batches = self._started(blocks, columns, shared)
        for _ in steps_of(resident.tables, batches, resident.advance, after, on_step):
            yield self._states(resident, columns)

    def measure_each(
        self, tasks: Sequence[Task], states: Sequence[TaskState], shared: Shared | None = None
    ) -> list[Measured]:
        """Measure the state of each task; see Trainer.measure_each."""
        if isinstance(self._measure, ResidentMeasure):
            return self._measure.each(tasks, states)
        return super().measure_each(tasks, states, shared)

    def _try_parts(self, block: Sequence[Task], shared: Shared | None) -> None:
        """Take one step with kernels in Triton, and replace them by torch if the step fails.

        A kernel compiles when it first runs with a shape of layers. Its tiles may need more than
        the GPU has, for example.
        """
        if self._tried or type(self.parts) is PlainSteps or not self._recipe.steps:
            return
        try:
            resident, batches = self._started([block], self._columns(block), shared)
            resident.tables.tell(0, batches)
            resident.advance()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            self.parts, self._kept = PlainSteps(), None
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            warnings.warn(
                f"kernels in Triton must compile for this network, got {reason}: training uses "
                "slower kernels in torch, whose masks differ from those of Triton in some bits",
                RuntimeWarning,
                stacklevel=2,
            )
        self._tried = True

    def _started(
        self, blocks: Sequence[Sequence[Task]], columns: np.ndarray | None, shared: Shared | None
    ) -> tuple[Resident, Iterator[np.ndarray]]:
        """Return the tensors of blocks before the first step, and the batches of all steps."""
        form = BlocksForm.of(blocks, self._method, self._shape(blocks[0])[1])
        resident = self._tensors(form)
        self._begin(resident, [task for block in blocks for task in block], columns, shared)
        return resident, self._indices(blocks, form.groups)

    def _columns(self, tasks: Sequence[Task]) -> Int32[np.ndarray, "T P"] | None:
        """Return the tasks' sources if the columns of the first layer are permuted.

        Otherwise return None.
        """
        if not reorders_columns(tasks, self._method):
            return None
        return np.stack([task.source for task in tasks if task.source is not None]).astype(np.int32)

    def _new(self, form: BlocksForm) -> Resident:
        if self._copied is None:
            self._copied = ResidentData.of(self._data, self._device)
        given = self._network, self._method, self._recipe, self._dtype, self.parts
        return Resident(*given, form, self._copied, graphs=self.graphs)

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
                    layer.scores[part] = in_training_order(layer.scores[part], own, part)
            else:
                keys = [key(self._seed, Role.SCORES, task.task_id, i) for task in tasks]
                bound = uniform_bound(layer.tensor)
                self.parts.draw(np.stack(keys), bound, own, layer.scores)
            signs = draw_signs(layer.tensor.shape, self._seed, i)
            on_device = torch.from_numpy(signs).to(self._device, layer.scores.dtype)
            for part in layer.parts():
                shown = on_device.expand(layer.scores[part].shape)
                shown = in_training_order(shown, own, part)
                for to, value in zip(layer.state, layer.optimizer.begin(shown), strict=True):
                    to[part].copy_(value)
            layer.choose()

    def _states(self, resident: Resident, columns: np.ndarray | None) -> list[TaskState]:
        """Pack the masks of all tasks on the device, and copy the rows to the host."""
        places = None if columns is None else torch.from_numpy(columns).to(self._device)
        rows = packed_rows(self._layout, resident.layers, places)
        return [PackedState(self._layout, row) for row in rows.cpu().numpy()]
