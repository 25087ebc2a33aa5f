"""Phases of a training, each with learning rates of its own."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """A part of a training, in which the learning rate follows the recipe once.

    Attributes:
        first: number of the first step of the phase.
        steps: number of steps of the phase.
        for_later_tasks: whether task 0 trains data in these steps that all later tasks need, such
            as a dense base. These steps of task 0 have the recipe's `first_learning_rate`.
    """

    first: int
    steps: int
    for_later_tasks: bool = True
