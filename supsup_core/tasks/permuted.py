"""Pixels in another order for each task. Shape letter: P pixels."""

import numpy as np
from jaxtyping import UInt16

from supsup_core.streams import Role, stream
from supsup_core.tasks.protocol import Setting, Task


def permutation(task_id: int, setting: Setting) -> UInt16[np.ndarray, " P"]:
    """Draw the order of a task's pixels."""
    order = stream(setting.seed, Role.PERMUTATION, task_id).permutation(setting.num_pixels)
    return order.astype(np.uint16)


class Permuted:
    """Permuted MNIST and its like."""

    def make(self, task_id: int, setting: Setting) -> Task:
        """Make one task."""
        return Task(task_id, source=permutation(task_id, setting), is_permutation=True)

    def max_tasks(self, num_classes: int) -> int | None:
        """There is no end."""
        return None
