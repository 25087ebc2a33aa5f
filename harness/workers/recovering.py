"""Recover masks by gradient descent on images without labels, as HopSupSup does.

Evaluation actors do this work. Each masked tensor has a reservoir of its own, and no mean is
subtracted, as in the authors' code. The descent never sees a label. Labels only measure the
accuracy of the masks after each step.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from harness.plan.device import device_name
from harness.plan.reservoirs import recovery_settings
from harness.plan.units import RecoveryUnit
from harness.run.spec import RunSpec
from harness.tables.reservoirs import RECOVERY
from harness.workers.queries import Queries, TaskQueries
from harness.workers.recalling import REHEARSALS
from supsup_core.reservoirs import Blocks, Perceptron, Reservoir
from supsup_core.reservoirs.patterns import patterns, rows_of
from supsup_core.reservoirs.recovery import Descent, Point, recover
from supsup_core.reservoirs.rules import named_rule


def recovered(
    spec: RunSpec,
    queries: Queries,
    unit: RecoveryUnit,
    rows: UInt8[np.ndarray, "k R"],
    on_share: Callable[[float], None],
) -> pa.Table:
    """Store the masks of a checkpoint in reservoirs, and recover the masks of some tasks.

    Args:
        spec: the run's specification.
        queries: makes the test batches of each task, and counts right labels.
        unit: the recovery unit.
        rows: (k, R) the k packed masks of the checkpoint, R bytes each.
        on_share: a function that is called with the fraction of the unit that is done.

    Returns:
        Rows of the table `recovery`: the start and each step, for each task of the unit.
    """
    stored = _by_tensor(spec, patterns(spec.layout, rows).to(queries.device))
    reservoirs = _filled(spec, unit.rule, stored, queries.device)
    starts = [of_tensor.mean(dim=0) for of_tensor in stored]
    columns: dict[str, list[object]] = defaultdict(list)
    for i, task_id in enumerate(unit.task_ids):
        on_share(i / len(unit.task_ids))
        asked = queries.of(task_id)
        began = time.perf_counter()
        points = list(
            recover(
                spec.network,
                spec.weights_for(task_id, queries.weights),
                reservoirs,
                starts,
                _batches(queries, asked, unit.gradients),
                Descent(),
            )
        )
        seconds = (time.perf_counter() - began) / unit.gradients
        own = [of_tensor[task_id] for of_tensor in stored]
        _add(columns, points, own, _Accuracy(spec, queries, asked))
        columns["task_id"] += [task_id] * len(points)
        columns["seconds"] += [seconds] * len(points)
    same = {
        "rule": unit.rule,
        "num_tasks": unit.num_tasks,
        **recovery_settings(spec.config, unit.num_tasks),
        "reservoir_bytes": sum(reservoir.num_bytes for reservoir in reservoirs),
        "device": device_name(queries.device),
    }
    columns |= {name: [value] * unit.num_rows for name, value in same.items()}
    return pa.table({name: columns[name] for name in RECOVERY.names}, schema=RECOVERY)


def _by_tensor(spec: RunSpec, masks: Float32[Tensor, "P D"]) -> list[Float32[Tensor, "P _"]]:
    """Divide patterns into the parts of the masked tensors, in the order of the tensors."""
    return list(masks.split([plane.num_bits for plane in spec.layout.planes], dim=1))


def _filled(
    spec: RunSpec, rule: str, stored: Sequence[Float32[Tensor, "P _"]], device: torch.device
) -> list[Reservoir]:
    """Store masks in one reservoir per masked tensor. Long masks are divided into blocks."""
    kind, block = named_rule(rule), int(spec.config.reservoir.block)  # resolved: no longer auto
    found = []
    for of_tensor in stored:
        reservoir = kind.blocks(of_tensor.shape[1], block, device)
        reservoir.store_all(of_tensor)
        if isinstance(reservoir, Blocks):
            for part, (first, end) in zip(reservoir.parts, reservoir.spans, strict=True):
                if isinstance(part, Perceptron):
                    part.rehearse(of_tensor[:, first:end], REHEARSALS)
        found.append(kind.recalled_from(reservoir))
    return found


def _batches(queries: Queries, asked: TaskQueries, number: int) -> list[Tensor]:
    """Return the images of each step: the task's test batches in turn, without labels."""
    shown = [queries.shown(asked.task, batch) for batch in asked.batches[:number]]
    return [shown[i % len(shown)] for i in range(number)]


class _Accuracy:
    """The fraction of right labels of a task's test batches, for masks of this task's descent.

    Args:
        spec: the run's specification.
        queries: counts right labels.
        asked: the task's test batches.
    """

    def __init__(self, spec: RunSpec, queries: Queries, asked: TaskQueries) -> None:
        self._spec, self._queries, self._asked = spec, queries, asked
        self._known: dict[bytes, float] = {}  # many steps change no bit

    def __call__(self, masks: Sequence[Float32[Tensor, " _"]]) -> float:
        """Measure masks of -1 and +1, one per masked tensor."""
        [row] = rows_of(self._spec.layout, torch.cat(list(masks))[None])
        key = row.tobytes()
        if key not in self._known:
            task, batches = self._asked.task, self._asked.batches
            right = self._queries.num_right(task, batches, self._queries.state(row))
            self._known[key] = sum(right) / sum(map(len, batches))
        return self._known[key]


def _add(
    columns: dict[str, list[object]],
    points: Sequence[Point],
    own: Sequence[Float32[Tensor, " _"]],
    accuracy: _Accuracy,
) -> None:
    """Add the rows of one task to the columns that differ between its steps.

    Args:
        columns: a mapping from column name to values.
        points: the start, and the masks after each step.
        own: the task's stored mask of each masked tensor.
        accuracy: measures masks of the task.
    """
    for step, point in enumerate(points):
        pairs = zip(point.masks, own, strict=True)
        columns["step"].append(step)
        columns["wrong_bits"].append([int((mask != wanted).sum()) for mask, wanted in pairs])
        columns["entropy"].append(point.entropy)
        columns["energy"].append(point.energy)
        columns["accuracy"].append(accuracy(point.masks))
        columns["accuracy_gg"].append(accuracy(own))
