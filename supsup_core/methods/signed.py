"""Signed supermasks: each weight is kept, hidden or inverted.

    gain = sign(score) if |score| > tau, else 0

The score gets the gradient of the gain unchanged (straight-through). tau is constant. It is a
fraction of b, the largest |score| that a tensor can have at the start. Weight decay
(train.weight_decay) makes |score| smaller, so more scores fall below tau and masks become sparser.

When to use: if masks may have two bits per weight, and few kept weights count more than bytes.

Source: Koster et al. 2022, "Signing the Supermask: Keep, Hide, Invert". Their initial scores are
Xavier uniform. Here the initial scores are uniform in (-b, b) with b = 1 / sqrt(fan_in), as for the
other finders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Annotated

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from supsup_core.knobs import Knob, check_knobs
from supsup_core.methods.first_scores import Values, mixed, uniform_bound
from supsup_core.methods.planes import PlaneMethod
from supsup_core.methods.rules import FastRule, SignedAbove
from supsup_core.networks.protocol import MaskedTensor
from supsup_core.states.layout import PlaneSpec


@dataclass(frozen=True)
class Signed(PlaneMethod):
    """The finder with a gain of -1, 0 or +1 for each weight.

    Raises:
        ValueError: the threshold is out of range.
    """

    threshold: Annotated[
        float,
        Knob(
            "A weight is hidden if its |score| is at most this fraction of the largest initial "
            "|score|.",
            at_least=0,
            below=1,
        ),
    ] = 0.4

    def __post_init__(self) -> None:
        check_knobs(Signed, vars(self))

    def planes(self, tensor: MaskedTensor) -> Sequence[PlaneSpec]:
        """Return two planes.

        The first plane marks the weights with a gain of +1 or -1. The second plane marks the
        weights with a gain of -1.
        """
        return (PlaneSpec("keep"), PlaneSpec("negative", -2.0))

    def scores_from(
        self, tensor: MaskedTensor, gains: Values, num_states: int, drawn: Values
    ) -> Values:
        """Make first scores from mean gains; see Method.scores_from.

        With one earlier state, the weight of the random scores is so small that the first gains
        are those of this state: the scores of weights with gain 0 stay below the threshold, and the
        magnitudes of all other scores stay above it.
        """
        own_share = min(self.threshold, (1 - self.threshold) / 2)
        return mixed(uniform_bound(tensor) * gains, drawn, num_states, own_share)

    def choose(self, tensor: MaskedTensor, scores: Tensor) -> Sequence[Bool[Tensor, "B ..."]]:
        """Choose the bits of the two planes; see PlaneMethod.choose."""
        kept = scores.abs() > self._tau(tensor)
        return kept, kept & (scores < 0)

    def fast_rule(self, tensor: MaskedTensor) -> FastRule | None:
        """Return the signed threshold. A subclass with another rule has no fast step."""
        is_same = self.keeps_methods(Signed, "planes", "choose", "slope", "decay")
        return SignedAbove(self._tau(tensor)) if is_same else None

    def _tau(self, tensor: MaskedTensor) -> float:
        # A number that float32 holds exactly, because scores are float32 or float64. So all steps
        # and states compare with the same number.
        return float(np.float32(self.threshold / sqrt(tensor.fan_in)))
