"""What a mask finder has to say.

A finder trains real scores. The gains of a task follow from its scores, and with them the
effective weights. What is stored are planes of bits, and perhaps floats.

Shape letters: B tasks of a block.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from supsup_core.networks.protocol import FloatSpec, MaskedTensor, Network
from supsup_core.states.layout import PlaneSpec, StateLayout, TaskState
from supsup_core.streams import Role, stream

Scores = Mapping[str, Tensor]  # by masked tensor, or any names of the finder's own: (B, ...)


class Method(ABC):
    """A rule that turns scores into gains, the scores it starts from, and what is stored.

    Attributes:
        order: what of other tasks a task needs: "any" none; "after_first" what the first task
            shares; "sequence" what the task before it shares.
    """

    order: Literal["any", "after_first", "sequence"] = "any"

    @abstractmethod
    def planes(self, tensor: MaskedTensor) -> Sequence[PlaneSpec]:
        """The planes that are stored of a masked tensor, one at least.

        Raises:
            ValueError: a tensor that the finder, with its options, cannot mask.
        """

    def float_specs(self, network: Network) -> Sequence[FloatSpec]:
        """The floats that the finder stores with each task."""
        return ()

    def begin(
        self, network: Network, task_id: int, seed: int, shared: Any = None
    ) -> dict[str, np.ndarray]:
        """Draw the scores that one task starts from, float32 by name.

        Args:
            network: the fixed network.
            task_id: the task's number.
            seed: the run's seed.
            shared: what earlier tasks share; None where the order is "any".
        """
        return {
            tensor.name: self.first_scores(tensor, stream(seed, Role.SCORES, task_id, i))
            for i, tensor in enumerate(network.tensors)
        }

    def first_scores(self, tensor: MaskedTensor, generator: np.random.Generator) -> np.ndarray:
        """Draw the scores of one tensor, float32: U(-b, b), b = 1 / sqrt(fan_in).

        That is Kaiming uniform with a = sqrt(5).
        """
        return uniform_scores(tensor, generator)

    @abstractmethod
    def gains(self, network: Network, scores: Scores) -> dict[str, Tensor]:
        """Gains (B, *shape) of each masked tensor, differentiable straight through the mask.

        The rule sees the scores of all tensors at once.
        """

    def after_step(self, scores: Scores, shared: Any, step: int, steps: int) -> None:  # noqa: B027
        """Change scores in place after an optimiser's step; most finders change nothing.

        Args:
            scores: (B, ...) by name.
            shared: what earlier tasks share.
            step: number of steps taken, from 1.
            steps: number of steps in all.
        """

    @abstractmethod
    def end(self, network: Network, scores: Scores) -> list[TaskState]:
        """The states of the B tasks, without the network's own floats."""


def layout_of(network: Network, method: Method) -> StateLayout:
    """Lay out the states that a finder stores of a network's tasks."""
    planes = [(tensor, method.planes(tensor)) for tensor in network.tensors]
    return StateLayout.of(planes, (*network.float_specs(), *method.float_specs(network)))


def uniform_scores(tensor: MaskedTensor, generator: np.random.Generator) -> np.ndarray:
    """Draw scores of a tensor from U(-b, b), b = 1 / sqrt(fan_in), float32."""
    bound = np.float32(1 / sqrt(tensor.fan_in))
    draws: np.ndarray = generator.random(tensor.shape, dtype=np.float32)
    scores: np.ndarray = (2 * draws - 1) * bound
    return scores


class KeepMethod(Method):
    """A finder of one plane: a rule says which gains are 1, the others are 0.

    A finder of this kind trains on the block path of an MLP, in torch operations, and needs
    `mask` alone.

    Attributes:
        reorders: whether the inputs of a tensor may come in another order while it trains: the
            rule must not depend on which scores stand side by side. (Where a rule breaks ties by
            place, it does so in the order of training.)
    """

    reorders: bool = True

    @abstractmethod
    def mask(self, tensor: MaskedTensor, scores: Tensor) -> Bool[Tensor, "B ..."]:
        """Which gains of a masked tensor are 1, from its scores (B, *shape)."""

    def slope(self, tensor: MaskedTensor, scores: Tensor) -> Tensor | float:
        """Give d gain / d score, straight through the mask: (B, *shape), or one number."""
        return 1.0

    def planes(self, tensor: MaskedTensor) -> Sequence[PlaneSpec]:
        """One plane."""
        return (PlaneSpec("keep"),)

    def gains(self, network: Network, scores: Scores) -> dict[str, Tensor]:
        """0 or 1 by the rule; the gradient is that of slope * score."""
        found = {}
        for tensor in network.tensors:
            score = scores[tensor.name]
            value = score.detach()
            kept = self.mask(tensor, value).to(score.dtype)
            found[tensor.name] = kept + self.slope(tensor, value) * (score - value)
        return found

    def end(self, network: Network, scores: Scores) -> list[TaskState]:
        """One plane of each masked tensor."""
        masks = [self.mask(t, scores[t.name].detach()).cpu().numpy() for t in network.tensors]
        return [TaskState(planes) for planes in zip(*masks, strict=True)]


def kept_count(density: float, num: int) -> int:
    """How many of `num` gains a density keeps: rounded, one at least."""
    return max(1, min(num, round(density * num)))


def check_density(density: float) -> None:
    """Refuse a density that is no fraction above 0.

    Raises:
        ValueError: naming it.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density must be in (0, 1], got {density}")


def top_share(scores: Tensor, num_kept: int) -> Bool[Tensor, "B ..."]:
    """Mark the largest scores of each task; among equals those that come first in C order.

    Args:
        scores: (B, *shape).
        num_kept: how many of each task.
    """
    flat = scores.flatten(1)
    lowest = flat.kthvalue(flat.shape[1] - num_kept + 1, dim=1, keepdim=True).values
    above, equal = flat > lowest, flat == lowest
    num_missing = num_kept - above.sum(dim=1, keepdim=True)
    first = equal.cumsum(dim=1, dtype=torch.int32) <= num_missing
    return (above | (equal & first)).reshape(scores.shape)
