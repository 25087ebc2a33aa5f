"""An optimiser's step for edge-popup, for the scores of one task in one tensor, on the CPU.

Edge-popup keeps the weights whose scores have the largest magnitudes, and its gradient is

    d loss / d score = sign(score) * d loss / d gain.

So the gradient of the magnitude |score| is d loss / d gain, as for a score of the threshold rule.
Therefore only the magnitudes are stored, and the step of the threshold rule changes them. If a
magnitude becomes negative, the score has crossed zero. kernels/top_share.py then makes the
magnitude positive. At the same index, it negates the values of the optimiser's state that change
sign with the score (the odd state). Finally, it writes the mask. The search for the smallest
magnitude that is kept starts near the value of the last step.

sign(0) is +1. With sign(0) = 0, a score of zero would never change. In one case, the result differs
from the result with signed scores: if a negative score becomes exactly zero, its magnitude does not
become negative, so the momentum stays as if the score were still negative.
"""

from torch import Tensor

from supsup_core.kernels.top_share import TopShare
from supsup_core.training.optimizers import FusedStep, Optimizer


class TopShareStep:
    """A step of the optimiser, and edge-popup's mask after the step.

    The object keeps references to its tensors, and each step changes the tensors in place.

    Args:
        optimizer: the optimiser of the scores.
        scores: magnitudes of the scores, float32 or float64, not negative.
        state: the optimiser's state, from its method `begin`.
        gradients: d loss / d masked sign. Each step reads this tensor. Several TopShareStep objects
            may use the same tensor.
        masked: the masked signs, in the gradients' dtype. Each step overwrites them.
        num_kept: number of weights to keep. If magnitudes are equal, the lower index is kept, so
            that exactly `num_kept` weights are kept.

    Raises:
        ValueError: the shapes differ, `num_kept` is out of range, or a magnitude is negative.
        RuntimeError: a tensor is not contiguous.
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
        """Take one step of the optimiser, and write the new mask.

        Args:
            learning_rate: the learning rate of the step.
            count: the number of this step; the first step has the number 1.
        """
        self._move.step(learning_rate, count)
        self._share.settle()
