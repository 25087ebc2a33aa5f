"""Tasks that have only a few of the data set's classes."""

from dataclasses import dataclass
from typing import Annotated

from supsup_core.knobs import Knob, check_knobs
from supsup_core.streams import Role, stream
from supsup_core.tasks.protocol import Setting, Task


@dataclass(frozen=True)
class Split:
    """The family of split data sets, as in SplitMNIST: each task has some classes of its own.

    If the number of classes is not a multiple of the classes per task, the last task has fewer
    classes. A task with one class has nothing to learn, so one class that is left over belongs to
    no task.
    """

    classes: Annotated[
        int, Knob("Number of classes of each task. The last task may have fewer.", at_least=2)
    ] = 2
    order: Annotated[
        str,
        Knob(
            "Order in which the classes are given to the tasks. data is the data set's order. seed "
            "draws an order from the run's seed.",
            one_of=("data", "seed"),
        ),
    ] = "data"
    renumber: Annotated[
        bool,
        Knob(
            "Whether the labels of each task count from 0, so that all tasks have the same labels. "
            "Otherwise, labels have the numbers of the data set."
        ),
    ] = False

    def __post_init__(self) -> None:
        check_knobs(Split, vars(self))

    def make(self, task_id: int, setting: Setting) -> Task:
        """Make a task: by default classes 0 and 1 for task 0, 2 and 3 for task 1, and so on.

        Raises:
            ValueError: the data set has fewer classes than a task needs.
        """
        num = setting.num_classes
        if self.classes > num:
            raise ValueError(
                f"classes must be at most {num}, the number of classes of the data set, got "
                f"{self.classes}"
            )
        order = range(num)
        if self.order == "seed":
            order = stream(setting.seed, Role.CLASSES).permutation(num).tolist()
        first = self.classes * task_id
        own = tuple(order[first : first + self.classes])
        return Task(task_id, classes=own, renumbers=self.renumber)

    def max_tasks(self, num_classes: int) -> int | None:
        """Return the number of tasks with at least two classes."""
        return -(-(num_classes - 1) // self.classes)
