"""What trains the states of a block of tasks, and measures one.

Shape letters: B tasks of a block.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task

OnStep = Callable[[int], None]  # hears how many steps are done


@dataclass(frozen=True)
class Measured:
    """How well a state does on the test inputs of its task.

    Attributes:
        accuracy: fraction of the labels that are right.
        loss: mean cross-entropy, nats.
        metrics: other figures by name, for tasks that are no classification.
    """

    accuracy: float
    loss: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable  # so that the tests can check annotations
class Trainer(Protocol):
    """Trains blocks of tasks, and measures states."""

    def stages(
        self,
        tasks: Sequence[Task],
        after: Collection[int],
        shared: Any = None,
        on_step: OnStep | None = None,
    ) -> Iterator[tuple[list[TaskState], Any]]:
        """Train a block, and show its states on the way.

        The result depends on the seed, the tasks of the block, the type of the products and the
        kind of device; not on what else is trained before, after or beside it.

        Args:
            tasks: B tasks of one family.
            after: numbers of steps after which to show the states, each in [0, recipe.steps].
            shared: what earlier tasks share; None where the finder's order is "any".
            on_step: hears how many steps are done, after each.

        Yields:
            the B states after each of the stages, in order, and what they share with later
            tasks. Nothing is trained before it is asked for.
        """
        ...

    def measure(self, task: Task, state: TaskState) -> Measured:
        """Measure one state on the test inputs of its task."""
        ...
