"""The base class of finders with gains of 0 and 1 that compare the magnitudes |score|."""

import numpy as np
import torch
from torch import Tensor

from supsup_core.methods.first_scores import Values, mixed, uniform_bound
from supsup_core.methods.planes import KeepMethod
from supsup_core.networks.protocol import MaskedTensor


class MagnitudeMethod(KeepMethod):
    """A finder that keeps weights with large |score|. A subclass defines `mask`.

    The gradient is computed as if the gain were |score|: d loss / d score is
    sign(score) * d loss / d gain.
    """

    def scores_from(
        self, tensor: MaskedTensor, gains: Values, num_states: int, drawn: Values
    ) -> Values:
        """Make first scores from the mean mask; see Method.scores_from.

        A kept weight counts as the magnitude b, and a dropped weight as 0. The signs are those of
        the task's random first scores, because the rule does not use the signs.
        """
        return magnitudes_from(uniform_bound(tensor) * gains, drawn, num_states)

    def slope(self, tensor: MaskedTensor, scores: Tensor) -> Tensor:
        """Return d |score| / d score: 1 or -1; see slope_of_magnitude."""
        return slope_of_magnitude(scores)


def magnitudes_from(
    earlier: Values, drawn: Values, num_states: int, own_share: float = 0.5
) -> Values:
    """Compute first scores: a weighted mean of magnitudes, with the signs of the own scores.

    Args:
        earlier: the mean of the magnitudes that the earlier states stand for.
        drawn: the task's own scores, in the same shape.
        num_states: the number of earlier states.
        own_share: see `mixed` in methods/first_scores.py.
    """
    scores: Values = np.copysign(mixed(earlier, np.abs(drawn), num_states, own_share), drawn)
    return scores


def slope_of_magnitude(scores: Tensor) -> Tensor:
    """Return d |score| / d score: 1 or -1, in the shape of the scores.

    The slope at 0 is 1. If it were 0, a score of 0 would have no gradient and never change.
    """
    return torch.ones_like(scores).copysign(scores)
