"""Rows of the table `tasks`, as the workers that train make them."""

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import torch

from harness.plan.device import device_name
from harness.run.spec import RunSpec
from harness.tables.schemas import TASKS
from supsup_core.states.density import density
from supsup_core.training.protocol import Measured

# The table `tasks` without the checksums, which the store computes when it writes the rows.
TRAINED = TASKS.remove(TASKS.get_field_index("row_crc32c"))


def tasks_table(
    spec: RunSpec,
    measured: Mapping[int, Measured],
    rows: np.ndarray,
    *,
    steps: int,
    seconds: float,
    worker: str,
    device: torch.device,
    free_share: float | None = None,
) -> pa.Table:
    """Make rows of the table `tasks`, without the checksums.

    Args:
        spec: the run's specification.
        measured: a mapping from task number to the accuracy and the loss of the task's state, and
            the accuracy of the dense base.
        rows: the packed states of these tasks, in the same order.
        steps: the training steps of a task.
        seconds: the training time per task, in seconds.
        worker: the name of the worker that trained the tasks.
        device: the device that trained the tasks.
        free_share: the fraction of the trained weights that no mask keeps after these tasks; None
            if the finder protects no weights.
    """
    num = len(measured)
    return pa.table(
        {
            "task_id": list(measured),
            "method": [spec.config.method] * num,
            "accuracy": [one.accuracy for one in measured.values()],
            "loss": [one.loss for one in measured.values()],
            "steps": [steps] * num,
            "train_seconds": [seconds] * num,
            "density": density(spec.layout, rows),
            "base_accuracy": [one.base_accuracy for one in measured.values()],
            "free_share": [free_share] * num,
            "mask_bytes": [spec.layout.row_bytes] * num,
            "worker": [worker] * num,
            "device": [device_name(device)] * num,
            "finished_at": [datetime.now(UTC)] * num,
        },
        schema=TRAINED,
    )
