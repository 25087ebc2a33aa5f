"""The protocol of a trainer. A trainer trains the states of a block of tasks, and measures states.

Shape letters: B tasks of a block.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from supsup_core.methods.protocol import Shared
from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training.batches import Batch

OnStep = Callable[[int], None]  # a function that takes the number of finished steps


@dataclass(frozen=True)
class Measured:
    """Accuracy and loss of a state on the test inputs of its task.

    Attributes:
        accuracy: fraction of the test inputs that get the right label, in [0, 1].
        loss: mean cross-entropy in nats.
        base_accuracy: accuracy of the dense base on the same inputs, without a mask; None if the
            finder has no base (Method.has_base).
        metrics: a mapping from the name of another measure to its value, for tasks other than
            classification.
    """

    accuracy: float
    loss: float
    base_accuracy: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable  # lets tests check annotations at run time
class Trainer(Protocol):
    """A trainer: it trains blocks of tasks, and measures states."""

    def stages(
        self,
        tasks: Sequence[Task],
        after: Collection[int],
        shared: Shared | None = None,
        on_step: OnStep | None = None,
        batches: Iterator[Batch] | None = None,
    ) -> Iterator[tuple[list[TaskState], Shared]]:
        """Train a block of tasks together, and yield their states after given numbers of steps.

        The result depends on the seed, on the tasks of the block, on the dtype of the matrix
        products and on the kind of device. It does not depend on other blocks. The method is a
        generator, so that a search can compare trials after equal fractions of their steps, and
        stop the worse trials.

        Args:
            tasks: B tasks of one family.
            after: numbers of steps after which the states are yielded, each at least 0, and at
                most the number of steps of the recipe if `batches` is None. There must be one or
                more. Training ends after the largest.
            shared: data from earlier tasks: the arrays of transfer.carried_shapes that were yielded
                for the previous task, and the entry transfer.ROWS if the recipe's transfer needs
                the states of earlier tasks. None if there are no earlier tasks, or if neither the
                finder nor the recipe needs them.
            on_step: a function that is called after each step, with the number of finished steps.
            batches: the batches to train on, one per step. Their tasks may change from step to
                step, but must be of the family of `tasks`; see stream.py. None: the batches
                of the block itself, as block_batches gives them.

        Yields:
            The B states, in the order of the tasks, and the data for later tasks: the arrays of
            transfer.carried_shapes. The trainer takes a step only when states that need this step
            are requested.
        """
        ...

    def side_by_side(
        self, blocks: Sequence[Sequence[Task]], on_step: OnStep | None = None
    ) -> list[TaskState]:
        """Train several blocks to the end, at the same time if the trainer can.

        The states are the same as if each block were trained alone. The finder must need no data
        from earlier tasks.

        Args:
            blocks: blocks of tasks, all of one family.
            on_step: a function that is called with a number from 1 to the number of steps of the
                recipe. The number divided by the number of steps is the finished fraction of the
                training of all blocks.

        Returns:
            The states of the tasks of all blocks, in order.
        """
        ...

    def measure(self, task: Task, state: TaskState, shared: Shared | None = None) -> Measured:
        """Measure the accuracy and the loss of one state on the test inputs of its task.

        Args:
            task: the task.
            state: the state.
            shared: data from earlier tasks, where the data that `stages` yielded with the state
                take precedence. They are needed only if the finder trains weights.
        """
        ...

    def measure_each(
        self, tasks: Sequence[Task], states: Sequence[TaskState], shared: Shared | None = None
    ) -> list[Measured]:
        """Measure the state of each task on the test inputs of the task; see `measure`."""
        ...
