"""N:M sparsity: of every M inputs of a unit that follow each other, a mask keeps N.

    gain = 1 if |score| is among the largest N of its group of M scores, else 0

The groups are made along the inputs of one unit. For a convolution, the inputs have the order
(height, width, channel), so a group has M channels at the same place if their number is a multiple
of M. Gains over units are divided into groups of M units. If the last group is smaller, it keeps
the same share, rounded, but at least one.

Training adds decay * score to the gradient of each dropped score (SR-STE). So dropped scores become
smaller, and the mask changes less often.

When to use: if masks must have a pattern that hardware can compute faster, such as 2:4. The entropy
of a mask is log2(M choose N) / M bits per weight, but the store keeps one bit per weight.

Source: Zhou et al. 2021, arXiv:2102.04010, "Learning N:M Fine-grained Structured Sparse Neural
Networks From Scratch". They train weights, and choose and decay them by |weight|. Here the weights
are fixed, and the scores are chosen and decayed. The authors multiply a dropped weight by 2e-4 for
its decay. For scores, a smaller factor gives a higher accuracy on permuted MNIST
(analysis/records/2026-11-27-finders.md).
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Bool
from torch import Tensor

from supsup_core.knobs import Knob, check_knobs
from supsup_core.methods.magnitude import MagnitudeMethod
from supsup_core.methods.planes import kept_count
from supsup_core.methods.rules import FastRule, TopOfGroups
from supsup_core.networks.protocol import MaskedTensor

LARGEST_GROUP = 64


@dataclass(frozen=True)
class NOfM(MagnitudeMethod):
    """The finder that keeps N of every M weights of a unit, a pattern that GPUs compute faster.

    Raises:
        ValueError: n, m or decay_of_dropped is out of range, or n is above m.
    """

    # The groups are made from the order of the inputs.
    reorders = False

    n: Annotated[
        int,
        Knob(
            "N: number of weights that a mask keeps in each group. It is at most m.",
            at_least=1,
            at_most=LARGEST_GROUP,
        ),
    ] = 2
    m: Annotated[
        int, Knob("M: number of weights in a group.", at_least=1, at_most=LARGEST_GROUP)
    ] = 4
    decay_of_dropped: Annotated[
        float,
        Knob(
            "The gradient of each dropped score gets this number times the score added.",
            at_least=0,
        ),
    ] = 1e-5

    def __post_init__(self) -> None:
        check_knobs(NOfM, vars(self))
        if self.n > self.m:
            raise ValueError(f"n must be at most m={self.m}, got {self.n}")

    def fast_rule(self, tensor: MaskedTensor) -> FastRule | None:
        """Return the rule of groups. A subclass with another rule has no fast step.

        A convolution has none either, because the channels at one place are apart in memory.
        """
        is_same = self.keeps_methods(NOfM, "choose", "mask", "slope", "decay")
        if not is_same or len(tensor.shape) != 2:
            return None
        return TopOfGroups(self.n, self.m, self._last(tensor.shape[1]), self.decay_of_dropped)

    def mask(self, tensor: MaskedTensor, scores: Tensor) -> Bool[Tensor, "B ..."]:
        """Keep the N weights with the largest |score| of each group of M.

        If values are equal, the weight that comes first in the group is kept.
        """
        by_unit = _by_unit(tensor, scores.abs())
        num_inputs = by_unit.shape[-1]
        last = num_inputs % self.m
        groups = by_unit[..., : num_inputs - last].unflatten(-1, (-1, self.m))
        parts = [_top(groups, self.n).flatten(-2)]
        if last:
            parts.append(_top(by_unit[..., num_inputs - last :], self._last(num_inputs)))
        return _from_units(tensor, torch.cat(parts, dim=-1), scores)

    def decay(self, tensor: MaskedTensor, scores: Tensor) -> Tensor | None:
        """Return decay_of_dropped * score for each dropped score, and 0 for each kept score."""
        if not self.decay_of_dropped:
            return None
        return self.decay_of_dropped * scores * ~self.mask(tensor, scores)

    def _last(self, num_inputs: int) -> int:
        """Return how many weights are kept in the last group, if it is smaller than m."""
        return kept_count(self.n / self.m, num_inputs % self.m)


def _by_unit(tensor: MaskedTensor, values: Tensor) -> Tensor:
    """Arrange values (B, *shape) as (B, units, inputs). Channels are the last part of the inputs.

    Gains over units count as the inputs of one unit.
    """
    if tensor.over == "units":
        return values[:, None]
    return values.movedim(2, -1).flatten(2)


def _from_units(tensor: MaskedTensor, values: Tensor, like: Tensor) -> Tensor:
    """Arrange values (B, units, inputs) in the shape of `like`, the inverse of _by_unit."""
    if tensor.over == "units":
        return values[:, 0]
    batch, units, channels, *kernel = like.shape
    return values.reshape(batch, units, *kernel, channels).movedim(-1, 2)


def _top(values: Tensor, num_kept: int) -> Tensor:
    """Mark the `num_kept` largest values of the last dimension, exactly as many.

    Of equal values, those that come first are marked. A value is marked if its rank, the number of
    values that go before it, is below `num_kept`. Groups are small, so to count is faster than to
    sort.
    """
    rank = torch.zeros_like(values, dtype=torch.uint8)
    for j in range(values.shape[-1]):
        other = values[..., j : j + 1]
        rank += other > values
        rank[..., j + 1 :] += other == values[..., j + 1 :]
    return rank < num_kept
