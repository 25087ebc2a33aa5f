"""The threshold rule: a weight stays while its score is not negative.

Source: Wortsman et al. 2020 (the MNIST experiments), after Mallya et al. 2018.
About half of the weights stay at the start. Shape letters: O and I as in a layer.
"""

from math import sqrt

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from supsup_core.networks.mlp import Layer


class Threshold:
    """mask = [score >= 0]; the gradient passes the step unchanged (straight-through)."""

    def initial_scores(
        self, layer: Layer, generator: np.random.Generator
    ) -> Float[np.ndarray, "O I"]:
        """Draw scores from U(-b, b), b = 1 / sqrt(I): Kaiming uniform with a = sqrt(5)."""
        bound = np.float32(1 / sqrt(layer.shape[1]))
        draws: np.ndarray = generator.random(layer.shape, dtype=np.float32)
        scores: np.ndarray = (2 * draws - 1) * bound
        return scores

    def mask(self, scores: Float[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        """Keep the weights whose score is >= 0."""
        return scores >= 0
