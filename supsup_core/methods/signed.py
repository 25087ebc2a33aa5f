"""Signed supermasks: each weight is kept, hidden or inverted.

    gain = sign(score) if |score| > tau, else 0

The gradient passes the step unchanged (straight-through). tau is a share of the largest score
that a tensor can start with, and does not change. Weight decay (train.weight_decay) shrinks
scores below tau, so that masks become sparser.

Source: Koster et al. 2022, "Signing the Supermask: Keep, Hide, Invert". They start from Xavier
uniform scores; here scores start as those of the other finders, U(-b, b) with
b = 1 / sqrt(fan_in).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from supsup_core.methods.protocol import Method, Scores
from supsup_core.networks.protocol import MaskedTensor, Network
from supsup_core.states.layout import PlaneSpec, TaskState


@dataclass(frozen=True)
class Signed(Method):
    """Gains of -1, 0 and +1.

    Attributes:
        threshold: tau as a share of the largest initial score, in [0, 1).

    Raises:
        ValueError: a threshold out of range.
    """

    threshold: float = 0.4

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold must be in [0, 1), got {self.threshold}")

    def planes(self, tensor: MaskedTensor) -> Sequence[PlaneSpec]:
        """Which weights are not hidden, and which of those are inverted."""
        return (PlaneSpec("keep"), PlaneSpec("negative", -2.0))

    def gains(self, network: Network, scores: Scores) -> dict[str, Tensor]:
        """-1, 0 or 1 by the rule; the gradient is that of the score."""
        found = {}
        for tensor in network.tensors:
            score = scores[tensor.name]
            value = score.detach()
            signs = value.sign() * (value.abs() > self._tau(tensor))
            found[tensor.name] = signs + (score - value)
        return found

    def end(self, network: Network, scores: Scores) -> list[TaskState]:
        """Two planes of each tensor."""
        planes = []
        for tensor in network.tensors:
            value = scores[tensor.name].detach()
            kept = value.abs() > self._tau(tensor)
            planes += [kept.cpu().numpy(), (kept & (value < 0)).cpu().numpy()]
        return [TaskState(own) for own in zip(*planes, strict=True)]

    def _tau(self, tensor: MaskedTensor) -> Tensor:
        # In the scores' own type, so that gains and planes compare the same numbers.
        return torch.tensor(np.float32(self.threshold / sqrt(tensor.fan_in)))
