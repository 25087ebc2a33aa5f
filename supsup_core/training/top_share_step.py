"""An optimiser's step for edge-popup, for the scores of one task in one tensor, on the CPU.

Edge-popup keeps the weights whose scores have the largest magnitudes, and its gradient is

    d loss / d score = sign(score) * d loss / d gain.

So a step changes each magnitude as it changes a score of the threshold rule: down the gradient
d loss / d gain. If the magnitude becomes negative, the score has crossed zero. Scores are therefore
stored as magnitudes. The step of the threshold rule changes the magnitudes. Then
kernels/top_share.py makes negative magnitudes positive, negates the odd parts of the optimiser's
state at the same indices, and writes the mask. The search for the smallest kept magnitude starts
near the value of the last step.

sign(0) is +1, because with sign(0) = 0 a score of zero would never change. There is one difference
from signed scores. If a negative score becomes exactly zero, the magnitude has not crossed zero, so
the momentum is kept as if the score were still negative.
"""

from torch import Tensor

from supsup_core.kernels.top_share import TopShare
from supsup_core.training.optimizers import FusedStep, Optimizer


class TopShareStep:
    """An optimiser's step and edge-popup's mask, bound to tensors that are changed in place.

    Args:
        optimizer: the optimiser of the scores.
        scores: magnitudes of the scores, float32 or float64, not negative.
        state: the optimiser's state, from its method `begin`.
        gradients: d loss / d masked sign, which each step reads; several steps may share the
            tensor.
        masked: the masked signs, which each step overwrites; of the gradients' dtype.
        num_kept: number of weights to keep. Of equal magnitudes, the lower index in the order of
            training is kept, so that the number of kept weights is always exact.

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
            count: number of the step, from 1.
        """
        self._move.step(learning_rate, count)
        self._share.settle()
