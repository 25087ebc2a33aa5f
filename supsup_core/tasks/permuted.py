"""Tasks that permute the pixels of the images. Shape letter: P pixels."""

import numpy as np
from jaxtyping import UInt16

from supsup_core.streams import Role, stream
from supsup_core.tasks.protocol import Setting, Task


def permutation(task_id: int, setting: Setting) -> UInt16[np.ndarray, " P"]:
    """Draw the permutation of a task.

    Returns:
        (P,) for each of the P pixels of the task's images, the index of the original pixel.
    """
    order = stream(setting.seed, Role.PERMUTATION, task_id).permutation(setting.num_pixels)
    return order.astype(np.uint16)


class Permuted:
    """The family of permuted images, as in permuted MNIST: each task has its own permutation."""

    def make(self, task_id: int, setting: Setting) -> Task:
        """Make a task that permutes the pixels."""
        return Task(task_id, source=permutation(task_id, setting), is_permutation=True)

    def max_tasks(self, num_classes: int) -> int | None:
        """Return None: the number of tasks has no limit."""
        return None
