"""Tasks that have only a few of the data set's classes."""

from supsup_core.tasks.protocol import Setting, Task

CLASSES_PER_TASK = 2


class Split:
    """The family of split data sets, as in SplitMNIST: each task has two classes of its own."""

    def make(self, task_id: int, setting: Setting) -> Task:
        """Make a task with two classes: 0 and 1 for task 0, 2 and 3 for task 1, and so on."""
        first = CLASSES_PER_TASK * task_id
        return Task(task_id, classes=tuple(range(first, first + CLASSES_PER_TASK)))

    def max_tasks(self, num_classes: int) -> int | None:
        """Return the number of classes divided by the classes per task, rounded down."""
        return num_classes // CLASSES_PER_TASK
