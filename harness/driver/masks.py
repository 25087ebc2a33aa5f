"""The committed masks of the run in progress: find, commit and read them.

Shape letters: B masks, R bytes of a packed row.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from harness.driver.mean import Mean
from harness.run.committed import Committed
from harness.run.directory import Run
from harness.run.refusals import readable_path_errors
from harness.workers.training import TrainedUnit


class CommittedMasks:
    """The committed masks of a run, as a container of the task numbers that have a mask.

    Args:
        run: an open run, whose lock this process holds.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._tasks = Committed(run.store.capacity)
        self._accuracies = Mean()
        self._note(run.store.tasks(["task_id", "row_crc32c", "accuracy"]))

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._tasks

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def accuracy(self) -> float | None:
        """Mean accuracy of the committed tasks, in [0, 1]; None if there are none."""
        return self._accuracies.value

    def commit(self, units: Sequence[TrainedUnit]) -> int:
        """Commit the masks of several units in one commit.

        So each chunk is written once, for all units that have masks in the chunk.

        Returns:
            The number of masks committed.

        Raises:
            UserError: the run directory cannot be written, or its disk is full.
        """
        with readable_path_errors(self._run.directory):
            table = self._run.store.commit_together(
                [(unit.unit.name, unit.tasks, unit.rows) for unit in units]
            )
        self._note(table)
        return len(table)

    def read(self, task_ids: Sequence[int]) -> UInt8[np.ndarray, "B R"]:
        """Read the packed masks of committed tasks, and check each mask against its checksum.

        Raises:
            CorruptMask: a mask does not match its checksum.
        """
        return self._run.store.read(task_ids, self._tasks.crcs(task_ids))

    def _note(self, tasks: pa.Table) -> None:
        """Add rows of the log to the checksums and to the mean accuracy."""
        self._tasks.add(tasks["task_id"].to_numpy(), tasks["row_crc32c"].to_numpy())
        self._accuracies.add(tasks["accuracy"].to_numpy())
