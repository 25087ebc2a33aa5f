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
from supsup_core.methods.first_scores import Values, uniform_bound
from supsup_core.methods.magnitude import magnitudes_from, slope_of_magnitude
from supsup_core.methods.planes import PlaneMethod, kept_count, top_share
from supsup_core.methods.rules import FastRule, TopShares
from supsup_core.networks.protocol import MaskedTensor
from supsup_core.states.layout import PlaneSpec


@dataclass(frozen=True)
class Multicoated(PlaneMethod):
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

    def choose(self, tensor: MaskedTensor, scores: Tensor) -> Sequence[Bool[Tensor, "B ..."]]:
        """Choose the weights that each coat of a tensor keeps; see PlaneMethod.choose."""
        magnitudes = scores.abs()
        return [top_share(magnitudes, num) for num in self.num_kept(tensor)]

    def num_kept(self, tensor: MaskedTensor) -> tuple[int, ...]:
        """Return how many weights of a tensor each coat keeps."""
        return tuple(kept_count(density, tensor.num_gains) for density in self.densities)

    def slope(self, tensor: MaskedTensor, scores: Tensor) -> Tensor:
        """Return sign(score), times the number of coats, and times the scale of the gains."""
        return slope_of_magnitude(scores) * (self._coefficient * len(self.densities))

    def fast_rule(self, tensor: MaskedTensor) -> FastRule | None:
        """Return the rule of the coats. A subclass with another rule has no fast step."""
        is_same = self.keeps_methods(Multicoated, "planes", "choose", "slope", "decay")
        return TopShares(self.num_kept(tensor), self._coefficient) if is_same else None

    @property
    def _coefficient(self) -> float:
        # A number that float32 holds exactly, because gains are float32.
        return float(np.float32(1 / sqrt(self.densities[0]))) if self.scale_fan else 1.0
