"""Tasks that permute the values of the images. Shape letters: P pixels, V values."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import UInt

from supsup_core.knobs import Knob, check_knobs
from supsup_core.streams import Role, stream
from supsup_core.tasks.protocol import Setting, Task, source_type


def permutation(task_id: int, setting: Setting, length: int) -> UInt[np.ndarray, " V"]:
    """Draw the permutation of a task.

    Args:
        task_id: number of the task.
        setting: the run, whose seed determines the permutation.
        length: V, the number of permuted values.

    Returns:
        (V,) for each of the V values of the task's images, the index of the original value.
    """
    order = stream(setting.seed, Role.PERMUTATION, task_id).permutation(length)
    return order.astype(source_type(length))


@dataclass(frozen=True)
class Permuted:
    """The family of permuted images, as in permuted MNIST: each task has its own permutation."""

    over: Annotated[
        str,
        Knob(
            "What is permuted. pixels moves whole pixels, so that all channels of an image change "
            "in the same way. values moves each value of an image to any place and channel.",
            one_of=("pixels", "values"),
        ),
    ] = "pixels"

    def __post_init__(self) -> None:
        check_knobs(Permuted, vars(self))

    def make(self, task_id: int, setting: Setting) -> Task:
        """Make a task that permutes pixels or values."""
        length = setting.num_values if self.over == "values" else setting.num_pixels
        return Task(task_id, source=permutation(task_id, setting, length), is_permutation=True)

    def max_tasks(self, num_classes: int) -> int | None:
        """Return None: the number of tasks has no limit."""
        return None
