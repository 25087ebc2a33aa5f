"""Rules that decide whether a batch belongs to a known mask or needs a new mask.

A learner on a stream is not told which task a batch belongs to. It superposes its masks with equal
coefficients, and computes the slope d objective / d alpha of each mask for the batch. If the batch
belongs to a known task, the slope of this task's mask is much smaller than the other slopes. If the
batch belongs to an unknown task, no slope is much smaller, and the learner allocates a new mask.

References are masks without information about any task. They are also part of the superposition,
and a rule compares the slopes of the learner's masks with the slopes of the references.

Shape letters: F frozen masks, P masks in training (0 or 1), A and B references.
"""

from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

# The margin rule needs enough other slopes to estimate their standard deviation: with 16 slopes,
# the error of the estimate is about 18 %.
FEWEST_OTHERS = 16

# The mask in training must keep this share of the margin that it has for a batch of its own.
KEPT_MARGIN = 0.5


@dataclass(frozen=True, eq=False)  # == of tensors has no single truth value
class CandidateSlopes:
    """The slopes of all masks of a superposition for one batch.

    Attributes:
        frozen: (F,) slopes of the frozen masks, in the order of their numbers 0 to F - 1.
        training: (P,) the slope of the mask in training, whose number is F. P is 0 if no mask is in
            training.
        by_frozen: (A,) slopes of the references for the frozen masks.
        by_training: (B,) slopes of the references for the mask in training.
    """

    frozen: Float[Tensor, " F"]
    training: Float[Tensor, " P"]
    by_frozen: Float[Tensor, " A"]
    by_training: Float[Tensor, " B"]

    def __post_init__(self) -> None:
        if not bool(torch.isfinite(self.all).all()):
            raise FloatingPointError(
                f"slopes must be finite, got NaN or infinity with {len(self.all)} candidates: "
                "check the images and the weights"
            )

    @property
    def own(self) -> Float[Tensor, " _"]:
        """The slopes of the learner's masks, in the order of their numbers."""
        return torch.cat([self.frozen, self.training])

    @property
    def all(self) -> Float[Tensor, " _"]:
        """All slopes; those of the learner's masks are first."""
        return torch.cat([self.own, self.by_frozen, self.by_training])


@dataclass(frozen=True)
class Verdict:
    """The decision of a rule about one batch.

    Attributes:
        mask: number of the known mask that the batch belongs to; None if a new mask is needed.
        score: the number that the rule compares with its threshold.
        threshold: the batch belongs to a known mask if the score is at least this number.
    """

    mask: int | None
    score: float
    threshold: float


@runtime_checkable  # lets tests check annotations at run time
class Rule(Protocol):
    """A rule that decides from slopes whether a batch belongs to a known mask."""

    @property
    def references(self) -> Literal["shuffled", "untrained"]:
        """The kind of references.

        "shuffled": shuffled copies of the learner's masks; see states/shuffled.py. "untrained":
        masks before their first training step.
        """
        ...

    @property
    def looks_back(self) -> bool:
        """Whether the rule also needs the slopes for the batch of the previous decision."""
        ...

    def num_references(self, num_frozen: int, num_training: int) -> tuple[int, int]:
        """Return A and B, the numbers of references.

        Args:
            num_frozen: F, the number of frozen masks.
            num_training: P, 1 if a mask is in training, else 0.
        """
        ...

    def __call__(self, slopes: CandidateSlopes, before: CandidateSlopes | None = None) -> Verdict:
        """Decide whether a batch belongs to a known mask.

        Args:
            slopes: the slopes for the batch, of one mask or more.
            before: the slopes of the same candidates for the batch of the previous decision. That
                batch belongs to the mask in training. None if no mask is in training, or if
                `looks_back` is false.
        """
        ...


@dataclass(frozen=True)
class PaperRule:
    """Allocate if no candidate has a much larger probability than the others.

    With C candidates, the probabilities are nu = softmax(-slopes). The score is C * max(nu), and
    the threshold is 1 + epsilon. If an untrained mask has the largest probability, a new mask is
    allocated too.

    With one candidate, the score is always 1. So with floor=0, the second decision of a stream
    always allocates.

    Attributes:
        epsilon: how far the score must be above 1.
        floor: smallest number of candidates. If there are fewer masks, untrained masks are added.

    Source: Wortsman et al. 2020, section 3.4, with epsilon = 2^-3. The authors' code has floor=5,
        and trains the untrained mask if it has the largest probability.
    """

    epsilon: float = 2.0**-3
    floor: int = 0

    references: Literal["untrained"] = field(default="untrained", init=False)
    looks_back: bool = field(default=False, init=False)

    def num_references(self, num_frozen: int, num_training: int) -> tuple[int, int]:
        """See Rule.num_references."""
        return max(0, self.floor - num_frozen - num_training), 0

    def __call__(self, slopes: CandidateSlopes, before: CandidateSlopes | None = None) -> Verdict:
        """See Rule."""
        candidates = slopes.all
        score = len(candidates) * float(torch.softmax(-candidates.double(), dim=0).max())
        threshold, winner = 1 + self.epsilon, int(candidates.argmin())
        is_known = score >= threshold and winner < len(slopes.own)
        return Verdict(winner if is_known else None, score, threshold)


@dataclass(frozen=True)
class MarginRule:
    """Allocate if no mask has a slope far below the slopes that masks of other tasks have.

    The margin of a mask is

        (mean of the other slopes - slope of the mask) / standard deviation of the other slopes.

    For a frozen mask, the other slopes are the slopes of the other frozen masks. If these are fewer
    than FEWEST_OTHERS, slopes of shuffled copies of frozen masks are added. For the mask in
    training, the other slopes are the slopes of shuffled copies of the mask in training.

    The mask in training is not compared with frozen masks. All trained masks have properties in
    common that a mask does not have in its first steps. So the slope of the mask in training is
    larger than the slopes of frozen masks, even for batches of its own task. (On permuted digits,
    after 100 of the 1000 steps of the recipe paper, the margin of the mask in training among all
    other masks is 0.9 to 2.4 for batches of its own task. For batches of an unknown task, the
    largest margin of any mask is 1.7 to 2.0.)

    A batch can belong to the frozen mask with the smallest slope, or to the mask in training. For
    the frozen mask, the margin must be at least the threshold. For the mask in training, the margin
    must also be at least KEPT_MARGIN times its margin for the batch of the previous decision, which
    belongs to this mask. (The second condition is needed because shuffled copies differ from masks
    of other tasks: on permuted MNIST with the recipe fast, the margin of the mask in training is 2
    to 10 for batches of unknown tasks, and 22 to 60 for batches of its own task.)

    For both masks, the margin is divided by the margin that the mask must have. The rule takes the
    mask with the larger ratio. The score is the margin of this mask.

    Attributes:
        threshold: a batch belongs to a known mask if the mask's margin is at least this number.
    """

    threshold: float = 7.0

    references: Literal["shuffled"] = field(default="shuffled", init=False)
    looks_back: bool = field(default=True, init=False)

    def num_references(self, num_frozen: int, num_training: int) -> tuple[int, int]:
        """See Rule.num_references."""
        for_frozen = max(0, FEWEST_OTHERS - (num_frozen - 1)) if num_frozen else 0
        return for_frozen, FEWEST_OTHERS * num_training

    def __call__(self, slopes: CandidateSlopes, before: CandidateSlopes | None = None) -> Verdict:
        """See Rule."""
        found = []
        if len(slopes.frozen):
            first = int(slopes.frozen.argmin())
            others = torch.cat([slopes.frozen[:first], slopes.frozen[first + 1 :]])
            others = torch.cat([others, slopes.by_frozen])
            found.append((margin(slopes.frozen[first], others), self.threshold, first))
        if len(slopes.training):
            needed = self.threshold
            if before is not None:
                own = margin(before.training[0], before.by_training)
                needed = max(needed, KEPT_MARGIN * own)
            present = margin(slopes.training[0], slopes.by_training)
            found.append((present, needed, len(slopes.frozen)))
        score, needed, winner = max(found, key=lambda one: one[0] / one[1])
        return Verdict(winner if score >= needed else None, score, needed)


def margin(slope: Float[Tensor, ""], others: Float[Tensor, " _"]) -> float:
    """Compute how far a slope is below other slopes, in standard deviations of the others.

    Returns:
        (mean of the others - slope) / standard deviation of the others. If the others are all
        equal, the margin is infinite if the slope is below them, and 0 if it is not.

    Raises:
        ValueError: there are fewer than two others.
    """
    if len(others) < 2:
        raise ValueError(f"others must have 2 slopes or more, got {len(others)}: add references")
    exact = others.double()
    distance, spread = float(exact.mean() - slope.double()), float(exact.std())
    if not spread:
        return float("inf") if distance > 0 else 0.0
    return distance / spread
