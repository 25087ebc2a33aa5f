"""Rules from the scores of a tensor to its gains, for which trainers have a fast step.

A finder returns the rule of a tensor (PlaneMethod.fast_rule), with the rule's numbers for this
tensor. A trainer finds the form of the step by the class of the rule.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class AboveZero:
    """The threshold rule: a gain is 1 if its score is not negative, else 0. The slope is 1."""


@dataclass(frozen=True)
class SignedAbove:
    """A gain is the sign of its score if |score| is above a threshold, else 0. The slope is 1.

    Attributes:
        tau: the threshold, at least 0. A float32 holds it exactly, so that all float types compare
            with the same number.
    """

    tau: float


@dataclass(frozen=True)
class TopShares:
    """Nested coats of the largest |score|: a gain is the number of coats, times a coefficient.

    The slope of a score is its sign, times the number of all coats, times the coefficient. If
    scores have the same magnitude, the lower index is kept.

    Attributes:
        num_kept: for each coat, the number of weights that it keeps. It never grows from coat to
            coat.
        coefficient: the gain of one coat. A float32 holds it exactly.
    """

    num_kept: tuple[int, ...]
    coefficient: float = 1.0

    @property
    def slope(self) -> float:
        """The magnitude of d gain / d score."""
        return self.coefficient * len(self.num_kept)

    @property
    def gains(self) -> tuple[float, ...]:
        """For each coat, the gain of a weight that this coat keeps and the next coat drops."""
        return tuple(self.coefficient * (j + 1) for j in range(len(self.num_kept)))


@dataclass(frozen=True)
class TopOfGroups:
    """A gain is 1 if |score| is among the n largest of its group, else 0. The slope is its sign.

    The tensor has the shape (outputs, inputs). A group has m inputs of one output that follow each
    other. If scores have the same magnitude, the first is kept. Dropped scores get decay * score
    added to their gradient.

    Attributes:
        n: number of gains of a group that are 1.
        m: number of gains of a group.
        last: number of gains that are 1 in the last group, if this group is smaller than m.
        decay: the factor of the decay of dropped scores, at least 0.
    """

    n: int
    m: int
    last: int
    decay: float


@dataclass(frozen=True)
class Scaling:
    """The kept weights of a tensor have one scale per task: the mean magnitude of these weights.

    The magnitudes are fixed, and are the same for all tasks. The slope of a score is multiplied by
    the magnitude of its weight.

    Attributes:
        magnitudes: name of the entry of the first scores that has the magnitudes. A magnitude is
            at least 0, and has the unit of the network's constant c.
        scale: name of the scale in a stored state.
    """

    magnitudes: str
    scale: str


FastRule = AboveZero | SignedAbove | TopShares | TopOfGroups
