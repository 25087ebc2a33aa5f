"""Random first scores, and first scores from the states of earlier tasks."""

from math import sqrt

import numpy as np
from jaxtyping import Float32

from supsup_core.networks.protocol import MaskedTensor

Values = Float32[np.ndarray, "..."]  # values of the gains or the scores of one tensor


def uniform_scores(tensor: MaskedTensor, generator: np.random.Generator) -> np.ndarray:
    """Draw float32 scores of a tensor, uniform in (-b, b) with b = uniform_bound(tensor)."""
    draws: np.ndarray = generator.random(tensor.shape, dtype=np.float32)
    scores: np.ndarray = (2 * draws - 1) * np.float32(uniform_bound(tensor))
    return scores


def uniform_bound(tensor: MaskedTensor) -> float:
    """Return 1 / sqrt(fan_in), the bound of the magnitudes that `uniform_scores` draws."""
    return 1 / sqrt(tensor.fan_in)


def mixed(earlier: Values, drawn: Values, num_states: int, own_share: float = 0.5) -> Values:
    """Compute a weighted mean of earlier scores and the random first scores, in float32.

    Args:
        earlier: the mean of the scores of some earlier states.
        drawn: the random first scores of the task, in the same shape.
        num_states: the number of earlier states. All states have equal weights.
        own_share: the weight of `drawn` if there is one earlier state, in [0, 1).
    """
    own = own_share / (own_share + (1 - own_share) * num_states)
    found: np.ndarray = (1 - own) * earlier + own * drawn
    return found.astype(np.float32)
