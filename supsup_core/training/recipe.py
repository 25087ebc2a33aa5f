"""How scores are trained: the numbers of an optimiser and its schedule."""

from dataclasses import dataclass

import torch
from torch import Tensor

from supsup_core.names import DECAYS
from supsup_core.training.optimizers import Optimizer, make_optimizer


@dataclass(frozen=True)
class Recipe:
    """How scores are trained.

    Attributes:
        steps: optimiser steps a task.
        batch_size: images a step.
        learning_rate: at the first step.
        smoothing: of the optimiser's running mean of squares, where it has one.
        decay: one of DECAYS: "none", or "linear": the learning rate falls evenly towards 0.
        temperature: logits are divided by it in the loss; above 1 the softmax is softer.
        optimizer: one of OPTIMIZERS.
        momentum: of the optimiser's running mean or sum of gradients, where it has one.
        weight_decay: L2 decay of the scores: it is added to the gradient, times the score.
    """

    steps: int
    batch_size: int
    learning_rate: float
    smoothing: float = 0.99
    decay: str = "none"
    temperature: float = 1.0
    optimizer: str = "rmsprop"
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch_size < 1 or not self.learning_rate > 0:
            raise ValueError(
                "steps must be >= 0, batch_size >= 1 and learning_rate > 0, got "
                f"{self.steps}, {self.batch_size} and {self.learning_rate}"
            )
        if self.decay not in DECAYS:
            raise ValueError(f"decay must be one of {', '.join(DECAYS)}, got {self.decay!r}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must be >= 0, got {self.weight_decay}")
        self.make_optimizer()

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return self.learning_rate * (1 - step / self.steps if self.decay == "linear" else 1)

    def torch_optimizer(self, scores: list[Tensor]) -> torch.optim.Optimizer:
        """Make torch's own optimiser of some scores."""
        made = self.make_optimizer().torch_form(scores, self.learning_rate)
        made.param_groups[0]["weight_decay"] = self.weight_decay
        return made

    def make_optimizer(self) -> Optimizer:
        """Make the optimiser of the scores."""
        return make_optimizer(self.optimizer, smoothing=self.smoothing, momentum=self.momentum)
