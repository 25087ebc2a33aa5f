"""The recipe of a training: the optimiser of the scores, its options, and the learning rates."""

from dataclasses import dataclass, replace
from math import cos, pi

import torch
from torch import Tensor

from supsup_core.methods.phases import Phase
from supsup_core.names import AUGMENTS, DECAYS, NO_CHANGE, NO_TRANSFER, TRANSFERS
from supsup_core.training.optimizers import Optimizer, make_optimizer


@dataclass(frozen=True)
class Recipe:
    """The settings with which scores are trained.

    Attributes:
        steps: number of optimiser steps per task.
        batch_size: number of images per step.
        learning_rate: the largest learning rate. The first step has this rate. With a warm-up, the
            last step of the warm-up has it.
        first_learning_rate: the value of `learning_rate` for task 0, in the phases that train data
            for later tasks; None for the same value.
        smoothing: for rmsprop and adam, the decay per step of the running mean of squares.
        decay: "none": the learning rate is constant after the warm-up. "linear": it falls linearly
            towards 0. "cosine": it falls towards 0 like half a period of a cosine (Loshchilov &
            Hutter 2017), once per step.
        temperature: the logits are divided by this number in the loss. Above 1, the probabilities
            of the classes are closer to each other.
        optimizer: name of the optimiser, one of OPTIMIZERS.
        momentum: for adam, the decay per step of the running mean of gradients. For sgd, the decay
            per step of the running sum of gradients. For rmsprop, it must be 0.
        weight_decay: weight_decay * score is added to the gradient of each score (L2 decay).
        warmup: number of first steps in which the learning rate grows linearly to `learning_rate`.
            If it is above `steps`, the rate grows in all steps.
        augment: random changes of the training images, one of AUGMENTS.
        transfer: the way in which first scores use earlier tasks, one of TRANSFERS; see
            transfer.py.
    """

    steps: int
    batch_size: int
    learning_rate: float
    smoothing: float = 0.99
    decay: str = "none"
    # With a high learning rate, the masks of all tasks change in the same direction, and inference
    # then does not find the right mask. A temperature above 1 keeps the masks different.
    temperature: float = 1.0
    optimizer: str = "rmsprop"
    momentum: float = 0.0
    weight_decay: float = 0.0
    warmup: int = 0
    augment: str = NO_CHANGE
    transfer: str = NO_TRANSFER
    first_learning_rate: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch_size < 1 or not self.learning_rate > 0:
            raise ValueError(
                "steps must be >= 0, batch_size >= 1 and learning_rate > 0, got "
                f"steps={self.steps}, batch_size={self.batch_size} and "
                f"learning_rate={self.learning_rate}: correct the value that is outside its range"
            )
        if self.decay not in DECAYS:
            raise ValueError(f"decay must be one of {', '.join(DECAYS)}, got {self.decay!r}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must be >= 0, got {self.weight_decay}: try 0")
        if self.warmup < 0:
            raise ValueError(f"warmup must be >= 0, got {self.warmup}: try 0")
        if self.augment not in AUGMENTS:
            raise ValueError(f"augment must be one of {', '.join(AUGMENTS)}, got {self.augment!r}")
        if self.transfer not in TRANSFERS:
            known = ", ".join(TRANSFERS)
            raise ValueError(f"transfer must be one of {known}, got {self.transfer!r}")
        if self.first_learning_rate is not None and not self.first_learning_rate > 0:
            raise ValueError(
                f"first_learning_rate must be > 0 or None, got {self.first_learning_rate}: try None"
            )
        self.make_optimizer()

    def in_phase(self, phase: Phase, task_id: int) -> "Recipe":
        """Return the recipe of one phase of a training. Its step 0 is the phase's first step.

        Args:
            phase: the phase.
            task_id: the first task of the block. With a `first_learning_rate`, task 0 is a block of
                its own.
        """
        first = None if task_id or not phase.for_later_tasks else self.first_learning_rate
        return replace(self, steps=phase.steps, learning_rate=first or self.learning_rate)

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step. The first step is step 0.

        If a mask trains for more steps than the recipe has, because it follows a stream, a rate
        that decays stays 0 after the last step of the recipe.
        """
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        if self.decay == "none":
            return self.learning_rate
        if step >= self.steps:
            return 0.0
        share = (step - self.warmup) / (self.steps - self.warmup)  # of the steps after the warm-up
        if self.decay == "cosine":
            return self.learning_rate * (1 + cos(pi * share)) / 2
        return self.learning_rate * (1 - share)

    def torch_optimizer(self, scores: list[Tensor]) -> torch.optim.Optimizer:
        """Make an optimiser from torch.optim with the settings of this recipe.

        Args:
            scores: the tensors of scores that the optimiser changes.
        """
        return self.make_optimizer().torch_form(scores, self.learning_rate)

    def make_optimizer(self) -> Optimizer:
        """Make an optimiser of this project with the settings of this recipe."""
        return make_optimizer(
            self.optimizer,
            smoothing=self.smoothing,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )
