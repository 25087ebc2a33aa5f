"""Parts of an optimiser's kernel that depend on the finder's rule.

An optimiser's kernel calls these functions for each weight. A number that a rule does not need is
None. Numba then compiles a kernel without this part, so a rule costs nothing in the kernels of
other rules.
"""

from typing import no_type_check

import numba
import numpy as np

from supsup_core.kernels.bfloat16 import real, sign_of, stored


@numba.njit
@no_type_check  # Numba needs the functions themselves, not wrappers that check shapes in tests
def score_gradient(gradient, sign, score, masked, slope, decay, weight_decay):  # pragma: no cover
    """Compute d loss / d score.

    Args:
        gradient: d loss / d masked sign.
        sign: sign of the weight, +1 or -1.
        score: the score before the step.
        masked: the masked sign before the step.
        slope: d gain / d score; None means 1.
        decay: if the weight is dropped, decay * score is added; None means 0.
        weight_decay: weight_decay * score is added in any case; None means 0.
    """
    g = real(gradient) * sign
    if slope is not None:
        g = g * slope
    if decay is not None and real(masked) == np.float32(0):
        g = g + decay * score
    if weight_decay is not None:
        g = g + weight_decay * score
    return g


@numba.njit
@no_type_check
def masked_sign(score, sign, zero, tau):  # pragma: no cover
    """Compute the masked sign: the sign of the weight, times the gain of the score.

    Args:
        score: the score after the step.
        sign: sign of the weight, +1 or -1.
        zero: a zero in the type of the masked signs.
        tau: None for the threshold rule. Otherwise the gain is the sign of the score if |score| is
            above this threshold, else 0.
    """
    if tau is None:
        return stored(sign, zero) if score >= np.float32(0) else zero
    return stored(sign * sign_of(score), zero) if abs(score) > tau else zero
