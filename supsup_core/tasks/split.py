"""A few classes for each task."""

from supsup_core.tasks.protocol import Setting, Task

CLASSES_PER_TASK = 2


class Split:
    """SplitMNIST and its like: classes 0 and 1, then 2 and 3, and so on."""

    def make(self, task_id: int, setting: Setting) -> Task:
        """Make one task."""
        first = CLASSES_PER_TASK * task_id
        return Task(task_id, classes=tuple(range(first, first + CLASSES_PER_TASK)))

    def max_tasks(self, num_classes: int) -> int | None:
        """As many as the classes are enough for."""
        return num_classes // CLASSES_PER_TASK
