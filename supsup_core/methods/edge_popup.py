"""Edge-popup: the largest scores of each tensor, by magnitude, keep their weights.

    gain = [|score| is among the largest], in each tensor as many as its density says

The gradient passes the mask as if the gain were |score|: d loss / d score is
sign(score) * d loss / d gain.

Source: Ramanujan et al. 2020, arXiv:1911.13299; the budget by kappa: Wortsman et al. 2020, for
SplitCIFAR100 and SplitImageNet. Their code drops the smallest floor((1 - density) n) scores; this
rule keeps density * n, rounded, so that no density loses a weight to a float's last digit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Bool
from torch import Tensor

from supsup_core.methods.protocol import KeepMethod, check_density, kept_count, top_share
from supsup_core.networks.protocol import MaskedTensor
from supsup_core.states.layout import PlaneSpec

MOST_BY_KAPPA = 0.5


@dataclass(frozen=True)
class EdgePopup(KeepMethod):
    """Keeps the top share of |score| in each tensor.

    Attributes:
        density: fraction of each tensor that is kept, in (0, 1].
        kappa: the Erdos-Renyi budget instead of one density: a tensor of shape (out, in, ...)
            keeps min(1/2, kappa (out + in) / number of weights). 0: no such budget.

    Raises:
        ValueError: a density or kappa out of range.
    """

    density: float = 0.5
    kappa: float = 0.0

    def __post_init__(self) -> None:
        check_density(self.density)
        if not self.kappa >= 0:
            raise ValueError(f"kappa must be >= 0, got {self.kappa}")

    def planes(self, tensor: MaskedTensor) -> Sequence[PlaneSpec]:
        """One plane; a tensor that the budget does not fit is refused."""
        self.num_kept(tensor)
        return super().planes(tensor)

    def num_kept(self, tensor: MaskedTensor) -> int:
        """How many gains of a tensor are 1.

        Raises:
            ValueError: a budget by kappa for gains over units, which have no inputs to count.
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
        """Keep the largest magnitudes; among equals those that come first."""
        return top_share(scores.abs(), self.num_kept(tensor))

    def slope(self, tensor: MaskedTensor, scores: Tensor) -> Tensor:
        """Give the slope of |score|; at 0 it is 1, or a score of 0 would have no gradient."""
        return torch.ones_like(scores).copysign(scores)
