"""The base classes of finders whose rule chooses planes of bits, tensor by tensor.

Shape letters: B tasks of a block.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from supsup_core.methods.first_scores import Values, mixed, uniform_bound
from supsup_core.methods.protocol import Method, Scores
from supsup_core.methods.rules import FastRule, Scaling
from supsup_core.networks.protocol import MaskedTensor, Network
from supsup_core.states.layout import PlaneSpec, TaskState


class PlaneMethod(Method):
    """A finder whose planes of a tensor are a rule of the scores of this tensor alone.

    A subclass defines `planes` and `choose`. The fast trainers can then train masks of this finder
    on an MLP or a module.

    Attributes:
        reorders: whether a trainer may permute the inputs of a tensor during training. This is
            allowed if the rule does not depend on the positions of the scores. It is also allowed
            if the rule uses positions only to choose between equal scores. The positions during
            training then determine the mask.
    """

    reorders: bool = True

    @property
    def only_planes(self) -> bool:
        """Whether `choose`, `slope` and `decay` are the whole rule; see Method.only_planes.

        This is true if a subclass overrides no other method that a training calls, if scores are
        trained, and if tasks need no earlier tasks.
        """
        own = ("gains", "end", "gain_of")
        return (
            self.keeps_methods(PlaneMethod, *own)
            and self.keeps_methods(Method, "trained_names", "phase", "after_step")
            and not self.searches
            and self.order == "any"
        )

    def fast_rule(self, tensor: MaskedTensor) -> FastRule | None:
        """Return the rule of a tensor, if trainers have a fast step for the rule, else None.

        The rule must describe `choose`, `slope` and `decay`. A finder whose subclasses may override
        these methods returns None for a subclass that does.
        """
        return None

    def scaling(self, tensor: MaskedTensor) -> Scaling | None:
        """Return the scaling of a tensor if `fast_rule` and the scaling are the whole rule.

        None if the gains have no scale, or if another method of a subclass has a part of the rule.
        """
        return None

    @abstractmethod
    def choose(self, tensor: MaskedTensor, scores: Tensor) -> Sequence[Bool[Tensor, "B ..."]]:
        """Choose the bits of each plane of a tensor.

        Args:
            tensor: the masked tensor.
            scores: (B, *shape) the tensor's scores, for B tasks.

        Returns:
            The bits (B, *shape) of each plane, in the order of `planes`.
        """

    def slope(self, tensor: MaskedTensor, scores: Tensor) -> Tensor | float:
        """Return the derivative d gain / d score that training uses.

        The result is a tensor with the shape of the scores, or one number for all scores.
        """
        return 1.0

    def gain_of(self, tensor: MaskedTensor, scores: Tensor) -> Tensor:
        """Compute the gains of one tensor without gradients: the sum of coefficient * bits.

        Args:
            tensor: the masked tensor.
            scores: (B, *shape) the tensor's scores, for B tasks.

        Returns:
            (B, *shape) the gains, in the dtype of the scores.
        """
        pairs = zip(self.planes(tensor), self.choose(tensor, scores), strict=True)
        # The planes are added one by one, as in StateLayout.unflatten, so that stored states have
        # the same gains, bit for bit.
        first, *others = (bits.to(scores.dtype) * spec.coefficient for spec, bits in pairs)
        return sum(others, start=first)

    def gains(self, network: Network, scores: Scores) -> dict[str, Tensor]:
        """Compute the gains by `gain_of`. In the backward pass, `slope` is d gain / d score."""
        found = {}
        for tensor in network.tensors:
            score = scores[tensor.name]
            value = score.detach()
            slope = self.slope(tensor, value)
            found[tensor.name] = self.gain_of(tensor, value) + slope * (score - value)
        return found

    def end(self, network: Network, scores: Scores) -> list[TaskState]:
        """Make the states of B tasks from their scores, with the planes of all tensors."""
        planes = [
            bits.cpu().numpy()
            for tensor in network.tensors
            for bits in self.choose(tensor, scores[tensor.name].detach())
        ]
        return [TaskState(own) for own in zip(*planes, strict=True)]


class KeepMethod(PlaneMethod):
    """A finder with gains of 0 and 1, which are stored as one plane per tensor.

    A subclass only has to define `mask`.
    """

    @abstractmethod
    def mask(self, tensor: MaskedTensor, scores: Tensor) -> Bool[Tensor, "B ..."]:
        """Choose which gains of a masked tensor are 1.

        Args:
            tensor: the masked tensor.
            scores: (B, *shape) the tensor's scores, for B tasks.

        Returns:
            (B, *shape) True for each gain that is 1.
        """

    def choose(self, tensor: MaskedTensor, scores: Tensor) -> Sequence[Bool[Tensor, "B ..."]]:
        """Return the mask, whose bits are the gains; see PlaneMethod.choose."""
        return (self.mask(tensor, scores),)

    def planes(self, tensor: MaskedTensor) -> Sequence[PlaneSpec]:
        """Return one plane. Its bits are the gains."""
        return (PlaneSpec("keep"),)

    def scores_from(
        self, tensor: MaskedTensor, gains: Values, num_states: int, drawn: Values
    ) -> Values:
        """Make first scores from the mean mask; see Method.scores_from.

        The score of a mean mask m is (2 m - 1) b, so a kept weight counts as b and a dropped weight
        as -b.
        """
        return mixed(uniform_bound(tensor) * (2 * gains - 1), drawn, num_states)


def kept_count(density: float, num: int) -> int:
    """Return how many of `num` gains are 1: density * num, rounded, and at least 1."""
    return max(1, min(num, round(density * num)))


def top_share(scores: Tensor, num_kept: int | Int64[Tensor, "1"]) -> Bool[Tensor, "B ..."]:
    """Mark the `num_kept` largest scores of each task.

    If scores are equal, the scores with the lower indices (in C order) are marked, so that exactly
    `num_kept` scores are marked.

    Args:
        scores: (B, *shape) the scores of B tasks.
        num_kept: number of scores to mark per task, from 1 to the number of scores of a task. A
            tensor must be on the device of the scores. The host does not read it, but sorting all
            scores takes more time.

    Returns:
        (B, *shape) True for each marked score.
    """
    # A trainer may permute the scores. Of equal scores, those that come first in the trainer's
    # order are then marked.
    # This does no harm: the mask that was trained is the mask that is stored, and equal scores at
    # the cut are rare.
    flat = scores.flatten(1)
    if isinstance(num_kept, int):
        lowest = flat.kthvalue(flat.shape[1] - num_kept + 1, dim=1, keepdim=True).values
    else:
        lowest = flat.sort(dim=1).values.index_select(1, flat.shape[1] - num_kept)
    above, equal = flat > lowest, flat == lowest
    num_missing = num_kept - above.sum(dim=1, keepdim=True)
    first = equal.cumsum(dim=1, dtype=torch.int32) <= num_missing
    return (above | (equal & first)).reshape(scores.shape)
