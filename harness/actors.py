"""What runs inside a training actor: a plain class, which knows no Ray.

The serial executor calls it in this process; the Ray executor makes actors of it. It
holds the data set and one thread, and does not touch the store.
"""

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import torch

from harness import results
from harness.job import Job
from harness.plan import TrainUnit
from harness.trainers import make_trainer
from supsup_core.data import ImageSet
from supsup_core.masks import density


def own(data: ImageSet) -> ImageSet:
    """Copy arrays that came read-only from Ray's object store: torch wants to own them."""
    return replace(data, images=data.images.copy(), labels=data.labels.copy())


def pick_device() -> torch.device:
    """A GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """What the tables call a device: "cpu", or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


# The table `tasks` but for the checksums, which the store computes as it writes.
TRAINED = results.TASKS.remove(results.TASKS.get_field_index("row_crc32c"))


@dataclass(frozen=True)
class TrainedUnit:
    """The masks of a unit's missing tasks: packed rows (B, R), and their rows of `tasks`."""

    unit: TrainUnit
    rows: np.ndarray
    tasks: pa.Table


class TrainWorker:
    """Trains blocks of tasks.

    Args:
        job: of the run.
        train: the training images.
        test: the test images, for the accuracy in the table `tasks`.
        name: of this worker, for the table.
    """

    def __init__(self, job: Job, train: ImageSet, test: ImageSet, name: str) -> None:
        torch.set_num_threads(1)  # results depend on it, and Ray may have said otherwise
        self._job, self._name = job, name
        self._device = pick_device()
        self._trainer = make_trainer(job, own(train), own(test), self._device)
        self._layout = job.layout
        self._steps_done = 0

    def progress(self) -> float:
        """Share of the current unit that is done; asked from another thread."""
        return self._steps_done / self._job.config.train.steps

    def run(self, unit: TrainUnit) -> TrainedUnit:
        """Train a block; pack and measure the masks that are missing.

        The whole block is trained even where some of its masks exist: a block is
        what makes a mask reproducible bit for bit.
        """
        started = time.perf_counter()
        config = self._job.config
        tasks = [self._job.task(i) for i in unit.task_ids]
        masks = self._trainer.train(tasks, self._on_step)
        seconds = (time.perf_counter() - started) / len(tasks)
        self._steps_done = 0
        wanted = [unit.task_ids.index(i) for i in unit.missing]
        rows = self._layout.pack([mask[wanted] for mask in masks])
        measured = [self._trainer.measure(tasks[i], [mask[i] for mask in masks]) for i in wanted]
        table = pa.table(
            {
                "task_id": list(unit.missing),
                "method": [config.method] * len(wanted),
                "accuracy": [accuracy for accuracy, _ in measured],
                "loss": [loss for _, loss in measured],
                "steps": [config.train.steps] * len(wanted),
                "train_seconds": [seconds] * len(wanted),
                "density": density(self._layout, rows),
                "mask_bytes": [self._layout.row_bytes] * len(wanted),
                "worker": [self._name] * len(wanted),
                "device": [device_name(self._device)] * len(wanted),
                "finished_at": [datetime.now(UTC)] * len(wanted),
            },
            schema=TRAINED,
        )
        return TrainedUnit(unit, rows, table)

    def _on_step(self, done: int) -> None:
        self._steps_done = done
