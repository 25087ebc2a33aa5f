"""The threshold rule: a gain is 1 if its score is not negative, else 0.

At the start, about half of the weights are kept.
Source: Wortsman et al. 2020 (the MNIST experiments), after Mallya et al. 2018.
"""

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from supsup_core.methods.protocol import KeepMethod
from supsup_core.networks.protocol import MaskedTensor


class Threshold(KeepMethod):
    """The finder with mask = [score >= 0] and a straight-through gradient: d gain / d score = 1."""

    def first_scores(self, tensor: MaskedTensor, generator: np.random.Generator) -> np.ndarray:
        """Return zeros for gains over units, as in HopSupSup of Wortsman et al. 2020.

        Gains over weights get random scores. The other finders never start at 0: edge-popup would
        find only ties, and signed masks would hide every unit, which leaves two or more hidden
        layers without a gradient.
        """
        if tensor.over == "units":
            return np.zeros(tensor.shape, np.float32)
        return super().first_scores(tensor, generator)

    def mask(self, tensor: MaskedTensor, scores: Tensor) -> Bool[Tensor, "B ..."]:
        """Keep the weights or units whose score is >= 0."""
        return scores >= 0
