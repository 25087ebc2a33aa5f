"""Remember which tasks have a committed mask, and the checksums of the masks.

This takes five bytes per task.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer


class Committed:
    """The committed tasks of a run, and the checksums of their masks.

    Args:
        num_tasks: the largest number of tasks that can be committed.
    """

    def __init__(self, num_tasks: int) -> None:
        self._there = np.zeros(num_tasks, bool)
        self._crcs = np.zeros(num_tasks, np.uint32)

    def __contains__(self, task_id: object) -> bool:
        return (
            isinstance(task_id, int) and task_id < len(self._there) and bool(self._there[task_id])
        )

    def __len__(self) -> int:
        return int(np.count_nonzero(self._there))

    def add(self, task_ids: Integer[np.ndarray, " B"], crcs: Integer[np.ndarray, " B"]) -> None:
        """Add tasks with a committed mask, and the CRC-32C checksums of their packed rows."""
        self._there[task_ids] = True
        self._crcs[task_ids] = crcs

    def crcs(self, task_ids: Sequence[int]) -> Integer[np.ndarray, " B"]:
        """Return the checksums of committed masks, in the order of `task_ids`."""
        return self._crcs[np.asarray(task_ids, np.int64)]
