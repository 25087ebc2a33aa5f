"""Commit the masks of the run in progress, and read committed masks.

Shape letters: B masks, R bytes of a packed row.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from harness.driver.mean import Mean
from harness.run.committed import Committed
from harness.run.refusals import readable_path_errors
from harness.run.run import Run


class CommittedMasks:
    """The committed masks of a run.

    `task_id in masks` tells whether the mask of a task is committed. `len(masks)` is the number of
    committed masks.

    Args:
        run: an open run. This process holds the lock of the run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._tasks = Committed(run.store.capacity)
        self._accuracies = Mean()
        self._devices: set[str] = set()
        self._note(run.store.tasks(["task_id", "row_crc32c", "accuracy", "device"]))

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._tasks

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def accuracy(self) -> float | None:
        """Mean accuracy of all committed tasks, in [0, 1]; None before the first commit."""
        return self._accuracies.value

    @property
    def devices(self) -> list[str]:
        """The devices that trained the committed masks, in order: "cpu" or models of GPUs."""
        return sorted(self._devices)

    def commit(self, units: Sequence[tuple[str, pa.Table, UInt8[np.ndarray, "B R"]]]) -> int:
        """Commit the masks of several training units together.

        The store has chunks of several masks. If several units have masks in the same chunk, the
        chunk is written only once.

        Args:
            units: for each training unit, its name, its rows of the table `tasks` without
                checksums, and its packed masks.

        Returns:
            The number of masks committed.

        Raises:
            UserError: the run directory cannot be written, or its disk is full.
        """
        with readable_path_errors(self._run.directory):
            table = self._run.store.commit_together(units)
        self._note(table)
        return len(table)

    def read(self, task_ids: Sequence[int]) -> UInt8[np.ndarray, "B R"]:
        """Read the packed masks of committed tasks, and check each mask against its checksum.

        Returns:
            (B, R) packed masks, in the order of `task_ids`: B masks of R bytes each.

        Raises:
            CorruptMask: a mask does not match its checksum.
        """
        return self._run.store.read(task_ids, self._tasks.crcs(task_ids))

    def _note(self, tasks: pa.Table) -> None:
        """Take the checksums, accuracies and devices from rows of the table `tasks`."""
        self._tasks.add(tasks["task_id"].to_numpy(), tasks["row_crc32c"].to_numpy())
        self._accuracies.add(tasks["accuracy"].to_numpy())
        self._devices.update(tasks["device"].unique().to_pylist())
