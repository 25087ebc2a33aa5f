"""Edge-popup: a mask keeps the weights with the largest |score| of each tensor.

    gain = 1 if |score| is among the largest density * n of the tensor's n scores, else 0

The gradient is computed as if the gain were |score|: d loss / d score is
sign(score) * d loss / d gain.

With the option kappa, each tensor has a density of its own, which depends on the tensor's shape.

When to use: if masks must have a fixed density.

Source: Ramanujan et al. 2020, arXiv:1911.13299. The option kappa is from Wortsman et al. 2020
(SplitCIFAR100 and SplitImageNet). Their code drops the smallest floor((1 - density) n) scores. This
rule keeps density * n scores, rounded. So a floating-point error in 1 - density does not change the
number of kept weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated

from jaxtyping import Bool
from torch import Tensor

from supsup_core.knobs import Knob, check_knobs
from supsup_core.methods.magnitude import MagnitudeMethod
from supsup_core.methods.planes import kept_count, top_share
from supsup_core.methods.rules import FastRule, TopShares
from supsup_core.networks.protocol import MaskedTensor
from supsup_core.states.layout import PlaneSpec

MOST_BY_KAPPA = 0.5  # largest density of a tensor if kappa determines the densities


@dataclass(frozen=True)
class EdgePopup(MagnitudeMethod):
    """The finder that keeps the weights with the largest |score| of each tensor.

    Raises:
        ValueError: density or kappa is out of range.
    """

    density: Annotated[
        float, Knob("Fraction of each tensor's weights that a mask keeps.", above=0, at_most=1)
    ] = 0.5
    kappa: Annotated[
        float,
        Knob(
            "Erdos-Renyi budget, which replaces density: a tensor of shape (out, in, ...) keeps "
            "the fraction min(1/2, kappa (out + in) / number of weights). 0 means that density is "
            "used.",
            at_least=0,
        ),
    ] = 0.0

    def __post_init__(self) -> None:
        check_knobs(EdgePopup, vars(self))

    def fast_rule(self, tensor: MaskedTensor) -> FastRule | None:
        """Return the rule of one coat. A subclass with another rule has no fast step."""
        is_same = self.keeps_methods(EdgePopup, "choose", "mask", "slope", "decay")
        return TopShares((self.num_kept(tensor),)) if is_same else None

    def planes(self, tensor: MaskedTensor) -> Sequence[PlaneSpec]:
        """Return one plane. Its bits are the gains.

        Raises:
            ValueError: the tensor has gains over units, and kappa is not 0.
        """
        self.num_kept(tensor)
        return super().planes(tensor)

    def num_kept(self, tensor: MaskedTensor) -> int:
        """Return how many gains of a tensor are 1.

        Raises:
            ValueError: the tensor has gains over units, and kappa is not 0. With kappa, the density
                depends on the tensor's number of inputs, and gains over units have no inputs.
        """
        if not self.kappa:
            return kept_count(self.density, tensor.num_gains)
        if len(tensor.shape) < 2:
            raise ValueError(
                f"kappa must be 0 for gains over units, got {self.kappa} for {tensor.name}"
            )
        ends = tensor.shape[0] + tensor.shape[1]
        return kept_count(
            min(MOST_BY_KAPPA, self.kappa * ends / prod(tensor.shape)), tensor.num_gains
        )

    def mask(self, tensor: MaskedTensor, scores: Tensor) -> Bool[Tensor, "B ..."]:
        """Keep the weights with the largest |score|. If values are equal, keep the lower index."""
        return top_share(scores.abs(), self.num_kept(tensor))
