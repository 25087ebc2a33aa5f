"""The threshold rule: a gain is 1 while its score is not negative.

Source: Wortsman et al. 2020 (the MNIST experiments), after Mallya et al. 2018.
About half of the weights stay at the start.
"""

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from supsup_core.methods.protocol import KeepMethod
from supsup_core.networks.protocol import MaskedTensor


class Threshold(KeepMethod):
    """mask = [score >= 0]; the gradient passes the step unchanged (straight-through)."""

    def first_scores(self, tensor: MaskedTensor, generator: np.random.Generator) -> np.ndarray:
        """Begin at 0 over units, as in the HopSupSup of Wortsman et al. 2020."""
        if tensor.over == "units":
            return np.zeros(tensor.shape, np.float32)
        return super().first_scores(tensor, generator)

    def mask(self, tensor: MaskedTensor, scores: Tensor) -> Bool[Tensor, "B ..."]:
        """Keep the gains whose score is >= 0."""
        return scores >= 0
