"""Multicoated supermasks: a gain is the number of coats that keep the weight.

    gain = number of the coats j for which |score| is among the largest density_j * n of the
           tensor's n scores

The densities become smaller from coat to coat, so the coats are nested: a coat keeps only weights
that the coat before keeps. All coats of a tensor have the same scores. Each coat passes its
gradient to the scores as if it were |score|, and the gradients add: with L coats,
d loss / d score is L * sign(score) * d loss / d gain. With one coat, the finder is edge-popup.

When to use: if masks may have more than one bit per weight, and the network must stay small. The
authors report a higher accuracy than with one coat.

Source: Okoshi et al. 2022, "Multicoated Supermasks Enhance Hidden Networks" (M-Sup). The default
densities are those of their configuration "linear" with three coats. Their weights are multiplied
by 1 / sqrt(density of the first coat); the option scale_fan multiplies the gains by this number
instead, which gives the same effective weights. Their scores are Kaiming normal; here they are
uniform, as for the other finders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Annotated

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from supsup_core.knobs import Knob, check_knobs
from supsup_core.methods.magnitude import magnitudes_from, slope_of_magnitude
from supsup_core.methods.protocol import (
    Method,
    Scores,
    Values,
    kept_count,
    top_share,
    uniform_bound,
)
from supsup_core.networks.protocol import MaskedTensor, Network
from supsup_core.states.layout import PlaneSpec, TaskState


@dataclass(frozen=True)
class Multicoated(Method):
    """The finder with nested masks, whose sum is the gain: strong weights count several times.

    Raises:
        ValueError: a density is out of range, or the densities do not become smaller.
    """

    densities: Annotated[
        Sequence[float],
        Knob(
            "Fraction of each tensor's weights that each coat keeps, from the first coat to the "
            "last. Each fraction must be smaller than the fraction before.",
            above=0,
            at_most=1,
            filled=True,
        ),
    ] = (0.3, 0.0788, 0.0315)
    scale_fan: Annotated[
        bool,
        Knob(
            "Whether gains are divided by the square root of the first density, so that the "
            "outputs of a layer keep their size."
        ),
    ] = False

    def __post_init__(self) -> None:
        check_knobs(Multicoated, vars(self))
        if any(later >= earlier for earlier, later in pairwise(self.densities)):
            raise ValueError(
                "densities must become smaller from coat to coat, got "
                f"{', '.join(map(str, self.densities))}"
            )

    def planes(self, tensor: MaskedTensor) -> Sequence[PlaneSpec]:
        """Return one plane per coat. If there is only one coat, it is a keep plane."""
        if len(self.densities) == 1:
            return (PlaneSpec("keep", self._coefficient),)
        return (PlaneSpec("coat", self._coefficient),) * len(self.densities)

    def scores_from(
        self, tensor: MaskedTensor, gains: Values, num_states: int, drawn: Values
    ) -> Values:
        """Make first scores from mean gains; see Method.scores_from.

        A weight that c of the L coats keep counts as the magnitude b c / L. With one earlier state,
        the weight of the own scores is 1 / (L + 1). This is small enough that the first gains are
        those of this state.
        """
        num_coats = len(self.densities)
        earlier = uniform_bound(tensor) / num_coats * gains / np.float32(self._coefficient)
        return magnitudes_from(earlier, drawn, num_states, 1 / (num_coats + 1))

    def gains(self, network: Network, scores: Scores) -> dict[str, Tensor]:
        """Compute the gains: the sum of the coats.

        In the backward pass, d gain / d score is the number of coats times sign(score), and times
        the scale of the gains.
        """
        found = {}
        for tensor in network.tensors:
            score = scores[tensor.name]
            value = score.detach()
            # The coats are added one by one, as in StateLayout.unflatten, so that stored states
            # have the same gains, bit for bit.
            coats = [coat.to(value.dtype) * self._coefficient for coat in self.coats(value)]
            gain = coats[0]
            for coat in coats[1:]:
                gain = gain + coat
            slope = slope_of_magnitude(value) * (self._coefficient * len(coats))
            found[tensor.name] = gain + slope * (score - value)
        return found

    def coats(self, scores: Tensor) -> list[Bool[Tensor, "B ..."]]:
        """Choose the weights that each coat of a tensor keeps.

        Args:
            scores: (B, *shape) the tensor's scores, for B tasks.

        Returns:
            One mask (B, *shape) per coat, from the first coat to the last.
        """
        magnitudes, num = scores.abs(), scores[0].numel()
        return [top_share(magnitudes, kept_count(density, num)) for density in self.densities]

    def end(self, network: Network, scores: Scores) -> list[TaskState]:
        """Make the states of B tasks from their scores: one plane per coat of each tensor."""
        planes = [
            coat.cpu().numpy()
            for tensor in network.tensors
            for coat in self.coats(scores[tensor.name].detach())
        ]
        return [TaskState(own) for own in zip(*planes, strict=True)]

    @property
    def _coefficient(self) -> float:
        # A number that float32 holds exactly, because gains are float32.
        return float(np.float32(1 / sqrt(self.densities[0]))) if self.scale_fan else 1.0
