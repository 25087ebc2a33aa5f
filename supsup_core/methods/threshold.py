"""The threshold rule: a gain is 1 if its score is not negative, else 0.

At the start, about half of the weights are kept.

When to use: as the first finder to try with an MLP, if the number of kept weights may differ from
task to task.

Source: Wortsman et al. 2020 (the MNIST experiments), after Mallya et al. 2018.
"""

from jaxtyping import Bool
from torch import Tensor

from supsup_core.methods.planes import KeepMethod
from supsup_core.methods.rules import AboveZero, FastRule
from supsup_core.networks.protocol import MaskedTensor


class Threshold(KeepMethod):
    """The finder that keeps the weights or units whose score is >= 0.

    In the backward pass, d gain / d score is 1 (straight-through).
    """

    # Zeros for units are as in HopSupSup of Wortsman et al. 2020. Other finders cannot start at 0.
    # With edge-popup, all scores would be equal. With signed masks, every unit would be hidden, and
    # a network with two or more hidden layers would have no gradient.
    zero_units = True

    def fast_rule(self, tensor: MaskedTensor) -> FastRule | None:
        """Return the threshold rule. A subclass with another rule has no fast step."""
        is_same = self.keeps_methods(Threshold, "choose", "mask", "slope", "decay")
        return AboveZero() if is_same else None

    def mask(self, tensor: MaskedTensor, scores: Tensor) -> Bool[Tensor, "B ..."]:
        """Keep the weights or units whose score is >= 0."""
        return scores >= 0
