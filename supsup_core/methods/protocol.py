"""The protocol of a mask finder.

A finder trains real scores. The scores of a task determine the task's gains, and the gains
determine the effective weights. The stored state of a task has planes of bits, and may have floats.

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

Scores = Mapping[str, Tensor]  # name of a masked tensor, or another name -> (B, ...)


class Method(ABC):
    """A mask finder: the first scores of a task, the rule from scores to gains, and the states.

    Attributes:
        order: the earlier tasks whose data a task needs. "any": no task. "after_first": the first
            task. "sequence": the previous task.
    """

    order: Literal["any", "after_first", "sequence"] = "any"

    @abstractmethod
    def planes(self, tensor: MaskedTensor) -> Sequence[PlaneSpec]:
        """List the planes that a state stores for a masked tensor; the list is not empty.

        Raises:
            ValueError: the finder cannot mask this tensor with the given options.
        """

    def float_specs(self, network: Network) -> Sequence[FloatSpec]:
        """List the arrays of floats that the finder stores with each task."""
        return ()

    def begin(
        self, network: Network, task_id: int, seed: int, shared: Any = None
    ) -> dict[str, np.ndarray]:
        """Draw the first scores of one task.

        Args:
            network: the fixed network.
            task_id: number of the task.
            seed: the run's seed.
            shared: data from earlier tasks; None if `order` is "any".

        Returns:
            float32 scores without the axis B, by the names of Scores.
        """
        return {
            tensor.name: self.first_scores(tensor, stream(seed, Role.SCORES, task_id, i))
            for i, tensor in enumerate(network.tensors)
        }

    def first_scores(self, tensor: MaskedTensor, generator: np.random.Generator) -> np.ndarray:
        """Draw the first scores of one tensor, float32, from U(-b, b) with b = 1 / sqrt(fan_in).

        This distribution is Kaiming uniform with a = sqrt(5).
        """
        return uniform_scores(tensor, generator)

    @abstractmethod
    def gains(self, network: Network, scores: Scores) -> dict[str, Tensor]:
        """Compute the gains from the scores, with a straight-through gradient.

        The rule gets the scores of all tensors at once.

        Returns:
            Gains (B, *shape), by the name of the masked tensor.
        """

    def after_step(self, scores: Scores, shared: Any, step: int, steps: int) -> None:  # noqa: B027
        """Change the scores in place after a step of the optimiser; most finders do nothing.

        Args:
            scores: scores (B, ...) by name.
            shared: data from earlier tasks; None if `order` is "any".
            step: number of steps so far, from 1 to `steps`.
            steps: number of steps of the whole training.
        """

    @abstractmethod
    def end(self, network: Network, scores: Scores) -> list[TaskState]:
        """Return the states of the B tasks, without the floats of the network."""


def layout_of(network: Network, method: Method) -> StateLayout:
    """Make the layout of the states that a finder stores for a network."""
    planes = [(tensor, method.planes(tensor)) for tensor in network.tensors]
    return StateLayout.of(planes, (*network.float_specs(), *method.float_specs(network)))


def uniform_scores(tensor: MaskedTensor, generator: np.random.Generator) -> np.ndarray:
    """Draw float32 scores of a tensor from U(-b, b) with b = 1 / sqrt(fan_in)."""
    bound = np.float32(1 / sqrt(tensor.fan_in))
    draws: np.ndarray = generator.random(tensor.shape, dtype=np.float32)
    scores: np.ndarray = (2 * draws - 1) * bound
    return scores


class KeepMethod(Method):
    """A finder with one plane per tensor, whose gains are 0 or 1.

    A subclass must define `mask` only. MLPTrainer can train any such finder on an MLP, in torch
    operations.

    Attributes:
        reorders: whether a trainer may permute the inputs of a tensor in training. True requires
            a rule that does not depend on the positions of scores. A rule may still break ties by
            position; then the positions in training decide.
    """

    reorders: bool = True

    @abstractmethod
    def mask(self, tensor: MaskedTensor, scores: Tensor) -> Bool[Tensor, "B ..."]:
        """Return which gains of a masked tensor are 1, given its scores (B, *shape)."""

    def slope(self, tensor: MaskedTensor, scores: Tensor) -> Tensor | float:
        """Return d gain / d score of the straight-through gradient: (B, *shape), or one number."""
        return 1.0

    def planes(self, tensor: MaskedTensor) -> Sequence[PlaneSpec]:
        """Return one keep plane."""
        return (PlaneSpec("keep"),)

    def gains(self, network: Network, scores: Scores) -> dict[str, Tensor]:
        """Return gains of 0 and 1 from `mask`; their gradient is the gradient of slope * score."""
        found = {}
        for tensor in network.tensors:
            score = scores[tensor.name]
            value = score.detach()
            kept = self.mask(tensor, value).to(score.dtype)
            found[tensor.name] = kept + self.slope(tensor, value) * (score - value)
        return found

    def end(self, network: Network, scores: Scores) -> list[TaskState]:
        """Return the states of the B tasks, with one plane per masked tensor."""
        masks = [self.mask(t, scores[t.name].detach()).cpu().numpy() for t in network.tensors]
        return [TaskState(planes) for planes in zip(*masks, strict=True)]


def kept_count(density: float, num: int) -> int:
    """Return how many of `num` gains a density keeps: density * num, rounded, and at least 1."""
    return max(1, min(num, round(density * num)))


def top_share(scores: Tensor, num_kept: int) -> Bool[Tensor, "B ..."]:
    """Mark the `num_kept` largest scores of each task.

    Of equal scores, those with the lower index in C order are marked, so that the count is exact
    for any scores. The order is the order in training. Equal scores at the cut are rare, and the
    mask that was trained is the mask that is stored.

    Args:
        scores: (B, *shape) scores.
        num_kept: number of marked scores per task, from 1 to the number of scores.

    Returns:
        True for each marked score.
    """
    flat = scores.flatten(1)
    lowest = flat.kthvalue(flat.shape[1] - num_kept + 1, dim=1, keepdim=True).values
    above, equal = flat > lowest, flat == lowest
    num_missing = num_kept - above.sum(dim=1, keepdim=True)
    first = equal.cumsum(dim=1, dtype=torch.int32) <= num_missing
    return (above | (equal & first)).reshape(scores.shape)
