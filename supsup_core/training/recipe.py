"""The recipe of a training: the optimiser of the scores, its options, and the learning rates."""

from dataclasses import dataclass

import torch
from torch import Tensor

from supsup_core.names import DECAYS
from supsup_core.training.optimizers import Optimizer, make_optimizer


@dataclass(frozen=True)
class Recipe:
    """The settings with which scores are trained.

    Attributes:
        steps: number of optimiser steps per task.
        batch_size: number of images per step.
        learning_rate: learning rate of the first step.
        smoothing: for rmsprop and adam, the decay per step of the running mean of squares.
        decay: "none": the learning rate is constant. "linear": the learning rate falls linearly
            towards 0.
        temperature: the logits are divided by this number in the loss. Above 1, the probabilities
            of the classes are closer to each other.
        optimizer: name of the optimiser, one of OPTIMIZERS.
        momentum: for adam, the decay per step of the running mean of gradients. For sgd, the decay
            per step of the running sum of gradients. For rmsprop, it must be 0.
        weight_decay: weight_decay * score is added to the gradient of each score (L2 decay).
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

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch_size < 1 or not self.learning_rate > 0:
            raise ValueError(
                "steps must be >= 0, batch_size >= 1 and learning_rate > 0, got "
                f"steps={self.steps}, batch_size={self.batch_size} and "
                f"learning_rate={self.learning_rate}: change the wrong value"
            )
        if self.decay not in DECAYS:
            raise ValueError(f"decay must be one of {', '.join(DECAYS)}, got {self.decay!r}")
        if not self.weight_decay >= 0:
            raise ValueError(
                f"weight_decay must be >= 0, got {self.weight_decay}: try weight_decay=0"
            )
        self.make_optimizer()

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step. The first step is step 0."""
        return self.learning_rate * (1 - step / self.steps if self.decay == "linear" else 1)

    def torch_optimizer(self, scores: list[Tensor]) -> torch.optim.Optimizer:
        """Make an optimiser from torch.optim with the settings of this recipe.

        Args:
            scores: the tensors of scores that the optimiser changes.
        """
        made = self.make_optimizer().torch_form(scores, self.learning_rate)
        made.param_groups[0]["weight_decay"] = self.weight_decay
        return made

    def make_optimizer(self) -> Optimizer:
        """Make an optimiser of this project with the settings of this recipe.

        The optimiser has no weight decay.
        """
        return make_optimizer(self.optimizer, smoothing=self.smoothing, momentum=self.momentum)
