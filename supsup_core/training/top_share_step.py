"""An optimiser's step under edge-popup, for the scores of one task in one tensor, on the CPU.

Edge-popup keeps the weights whose scores have the largest magnitudes, and its gradient is

    d loss / d score = sign(score) * d loss / d gain

so the magnitudes go down d loss / d gain, and a score that crosses zero bounces off it. The
scores are therefore stored as magnitudes: the step of the threshold rule moves them, and
kernels/top_share.py reflects those that have become negative and writes the mask.

sign(0) counts as +1, otherwise a score of zero would have no gradient. A score that was negative
and lands on zero exactly keeps its momentum here as if it were still negative, since a magnitude
does not say from which side it came.
"""

from torch import Tensor

from supsup_core.kernels.top_share import TopShare
from supsup_core.training.optimizers import FusedStep, Optimizer


class TopShareStep:
    """An optimiser's kernel and edge-popup's mask over memory that stays where it is.

    Args:
        optimizer: the optimiser of the scores.
        scores: magnitudes of the scores, float32 or float64, none negative.
        state: as the optimiser began it.
        gradients: d loss / d masked sign; read at every step; may be shared by many.
        masked: overwritten with the signs that stay; of the gradients' type.
        num_kept: how many signs stay; among equal magnitudes those with the lower index.

    Raises:
        ValueError: shapes that differ, `num_kept` out of range, or a negative magnitude.
        RuntimeError: a tensor that is not contiguous.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        scores: Tensor,
        state: tuple[Tensor, ...],
        gradients: Tensor,
        masked: Tensor,
        num_kept: int,
    ) -> None:
        self._move = FusedStep(optimizer, scores, state, gradients, masked)
        odd = [state[i] for i in optimizer.odd_state]
        self._share = TopShare(scores, odd, state[0], masked, num_kept)

    def step(self, learning_rate: float, count: int) -> None:
        """Take the step with this count, from 1."""
        self._move.step(learning_rate, count)
        self._share.settle()
