"""Steps of the optimiser for rules by |score|, for the scores of a tensor on the CPU.

Such a rule compares magnitudes, and its gradient is, for a constant slope,

    d loss / d score = slope * sign(score) * d loss / d gain.

So the gradient of the magnitude |score| is slope * d loss / d gain, as for a score of the threshold
rule. Therefore only the magnitudes are stored, and the step of the threshold rule changes them. If
a magnitude becomes negative, the score has crossed zero (kernels/patterns.py). A second kernel then
makes the magnitude positive, and writes the gains: kernels/top_share.py for edge-popup and several
coats, kernels/groups.py for N:M sparsity.

sign(0) is +1. With sign(0) = 0, a score of zero would never change. In one case, the result differs
from the result with signed scores: if a negative score becomes exactly zero, its magnitude does not
become negative, so the momentum stays as if the score were still negative.
"""

from torch import Tensor

from supsup_core.kernels.groups import TopOfGroups
from supsup_core.kernels.top_share import Coats, TopShare
from supsup_core.training.optimizers import FusedStep, Optimizer


class MagnitudeStep:
    """A step of the optimiser, and the gains after the step.

    The object keeps references to its tensors, and each step changes the tensors in place.
    """

    _move: FusedStep
    _gains: TopShare | TopOfGroups

    def step(self, learning_rate: float, count: int) -> None:
        """Take one step of the optimiser, and write the new masked signs.

        Args:
            learning_rate: the learning rate of the step.
            count: the number of this step; the first step has the number 1.
        """
        self._move.step(learning_rate, count)
        self._gains.settle()


class TopShareStep(MagnitudeStep):
    """A step for coats of the largest |score|.

    Args:
        optimizer: the optimiser of the scores.
        scores: magnitudes of the scores, float32 or float64, not negative.
        state: the optimiser's state, from its method `begin`.
        gradients: d loss / d masked sign. Each step reads this tensor. Several TopShareStep objects
            may use the same tensor.
        masked: the masked signs, in the gradients' dtype. Each step overwrites them.
        coats: the coats of the tensor; see kernels/top_share.py.
        slope: magnitude of d gain / d score.

    Raises:
        ValueError: the shapes differ, a number of weights is out of range, or a magnitude is
            negative.
        RuntimeError: a tensor is not contiguous.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        scores: Tensor,
        state: tuple[Tensor, ...],
        gradients: Tensor,
        masked: Tensor,
        coats: Coats,
        slope: float = 1.0,
    ) -> None:
        self._move = FusedStep(optimizer, scores, state, gradients, masked, slope=slope)
        odd = [state[i] for i in optimizer.odd_state]
        self._gains = TopShare(scores, odd, state[0], masked, coats)


class TopOfGroupsStep(MagnitudeStep):
    """A step for the n largest |score| of each group of m, with a decay of dropped scores.

    Args:
        optimizer: the optimiser of the scores.
        scores: magnitudes of the scores, as for TopShareStep. The groups are made along the last
            dimension. The other tensors have the same shape.
        state: the optimiser's state.
        gradients: d loss / d masked sign.
        masked: the masked signs before the step: 0 marks the dropped weights. Each step overwrites
            them.
        n: number of weights to keep of each group.
        m: number of weights of a group.
        last: number of weights to keep of the last group of a row, if it is smaller than m.
        decay: decay * score is added to the gradient of each dropped score.

    Raises:
        ValueError: the shapes differ, a number of weights is out of range, or a magnitude is
            negative.
        RuntimeError: a tensor is not contiguous.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        scores: Tensor,
        state: tuple[Tensor, ...],
        gradients: Tensor,
        masked: Tensor,
        *,
        n: int,
        m: int,
        last: int,
        decay: float,
    ) -> None:
        self._move = FusedStep(optimizer, scores, state, gradients, masked, decay=decay)
        odd = [state[i] for i in optimizer.odd_state]
        self._gains = TopOfGroups(scores, odd, state[0], masked, n, m, last)
