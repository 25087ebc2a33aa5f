"""Which mask belongs to which task.

If the task is given in training, mask i belongs to task i. A learner on a stream is not told the
task, so its masks and the tasks are matched afterwards, from its decisions. Only the evaluation
uses the result.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Decided:
    """A row of the table `allocation`, without the task and the score.

    Attributes:
        batch: number of the batch from which the mask was inferred.
        mask: number of the mask that is used from this batch on; None: the batches are skipped.
        allocates: whether the mask is new.
    """

    batch: int
    mask: int | None
    allocates: bool


@dataclass(frozen=True)
class Ownership:
    """The match of masks and tasks.

    Attributes:
        tasks: for each mask, the task on whose batches the mask trained longest. None: mask i
            belongs to task i.
        masks: for each task, the mask that was used for most of its batches; None for a task whose
            batches were all skipped. None in place of the list: mask i belongs to task i.
    """

    tasks: tuple[int, ...] | None = None
    masks: tuple[int | None, ...] | None = None

    def task_of(self, mask: int) -> int | None:
        """Return the task that a mask belongs to; None if it belongs to no task."""
        if self.tasks is None:
            return mask
        return self.tasks[mask] if mask < len(self.tasks) else None

    def mask_of(self, task_id: int) -> int | None:
        """Return the mask of a task; None if the task has no mask."""
        return task_id if self.masks is None else self.masks[task_id]


BY_NUMBER = Ownership()  # the task was given in training


@dataclass(frozen=True)
class Mistakes:
    """How well a learner on a stream recognised the tasks.

    Attributes:
        num_tasks: number of tasks that the stream has shown.
        num_masks: number of masks that were allocated for them.
        false_splits: number of masks that belong to a task with an earlier mask.
        false_merges: number of tasks for which the learner mostly used the mask of another task.
        skipped: number of tasks whose batches were all skipped, because the budget was used up.
    """

    num_tasks: int
    num_masks: int
    false_splits: int
    false_merges: int
    skipped: int

    @classmethod
    def of(cls, own: Ownership) -> "Mistakes":
        """Count the mistakes of a learner on a stream."""
        assert own.tasks is not None
        assert own.masks is not None
        used = [(task, mask) for task, mask in enumerate(own.masks) if mask is not None]
        return cls(
            num_tasks=len(own.masks),
            num_masks=len(own.tasks),
            false_splits=len(own.tasks) - len(set(own.tasks)),
            false_merges=sum(own.task_of(mask) != task for task, mask in used),
            skipped=len(own.masks) - len(used),
        )

    def described(self) -> str:
        """Describe the masks and the mistakes for the screen."""
        skipped = f", skipped tasks: {self.skipped}" if self.skipped else ""
        return (
            f"{self.num_masks} masks allocated for {self.num_tasks} tasks: {self.false_splits} "
            f"false splits, {self.false_merges} false merges{skipped}"
        )


def matched(decisions: Sequence[Decided], end: int, steps: int) -> Ownership:
    """Match masks and tasks from all decisions of a stream, or of its beginning.

    Args:
        decisions: the decisions about the batches before `end`, in order. The first decision, if
            there is any, is about batch 0.
        end: number of batches to look at: the batches 0 to end - 1. If this is not a multiple of
            `steps`, the last task is incomplete, and gets no mask.
        steps: number of batches of each task.
    """
    trained: dict[int, Counter[int]] = {}
    used: list[Counter[int]] = [Counter() for _ in range(end // steps)]
    training: int | None = None
    starts = [*(one.batch for one in decisions), end]
    for one, until in zip(decisions, starts[1:], strict=True):
        if one.allocates or one.mask != training:
            training = one.mask if one.allocates else None
        if one.mask is None:
            continue
        for task, num_batches in shares(one.batch, until, steps):
            if task < len(used):
                used[task][one.mask] += num_batches
            if one.mask == training:
                trained.setdefault(one.mask, Counter())[task] += num_batches
    return Ownership(
        tuple(_most(trained[mask]) for mask in sorted(trained)),
        tuple(_most(counts) if counts else None for counts in used),
    )


def longest(first: int, end: int, steps: int) -> int:
    """Return the task with the most batches among `first` to end - 1; the lowest if several."""
    return _most(Counter(dict(shares(first, end, steps))))


def shares(first: int, end: int, steps: int) -> Iterator[tuple[int, int]]:
    """Yield pairs for the batches `first` to end - 1: a task, and its number of these batches."""
    while first < end:
        task = first // steps
        until = min(end, (task + 1) * steps)
        yield task, until - first
        first = until


def _most(counts: Counter[int]) -> int:
    return max(counts, key=lambda one: (counts[one], -one))
