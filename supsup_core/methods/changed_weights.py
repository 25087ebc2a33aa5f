"""The base class of finders that change the fixed weights of a task while the task is trained.

From time to time, such a finder replaces the weights of some positions, and leaves the scores as
they are. The mask is found by the rule of biprop, or of edge-popup if all magnitudes of a tensor
are equal. The fixed weights are +c and -c, so a change of a weight is a change of its sign, and of
its magnitude in the scale of biprop. A state marks the weights whose signs have changed. Its gains
are -1, 0 and +1, times the scale.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from supsup_core.knobs import Knob
from supsup_core.methods.biprop import Biprop, Magnitudes
from supsup_core.methods.first_scores import Values
from supsup_core.methods.protocol import Progress, Scores, Shared
from supsup_core.names import SIGNED_CONSTANT
from supsup_core.networks.protocol import MaskedTensor, Network
from supsup_core.states.layout import PlaneSpec

Interval = Annotated[
    int,
    Knob("Number of steps between two changes of weights. None follows the last step.", at_least=1),
]


@dataclass(frozen=True)
class ChangedWeights(Biprop):
    """A finder that changes weights. A subclass has the option `every`, and defines `change`."""

    magnitudes: Magnitudes = SIGNED_CONSTANT
    every: Interval = 469

    @property
    def has_equal_steps(self) -> bool:
        """See Method.has_equal_steps. The changes of weights are not recorded."""
        return self.keeps_methods(ChangedWeights, "trained_names", "phase", "after_step")

    @abstractmethod
    def change(self, network: Network, scores: Scores, progress: Progress) -> None:
        """Change the signs (`flip_of`) and the magnitudes (`magnitude_of`) of weights in place.

        Args:
            network: the fixed network.
            scores: a mapping from name to the scores of B tasks, (B, ...).
            progress: the number of finished steps, and the tasks of the block.
        """

    def planes(self, tensor: MaskedTensor) -> Sequence[PlaneSpec]:
        """Return two planes. They mark the kept weights, and the kept weights with a new sign."""
        return (*super().planes(tensor), PlaneSpec("negative", -2.0))

    def begin(
        self, network: Network, task_id: int, seed: int, shared: Shared | None = None
    ) -> dict[str, np.ndarray]:
        """Draw the first scores. No sign has changed yet; see Method.begin."""
        flips = {flip_of(t.name): np.zeros(t.shape, np.bool_) for t in network.tensors}
        return super().begin(network, task_id, seed, shared) | flips

    def scores_from(
        self, tensor: MaskedTensor, gains: Values, num_states: int, drawn: Values
    ) -> Values:
        """Make first scores from mean gains; see Method.scores_from. A kept weight counts as b."""
        return super().scores_from(tensor, np.abs(gains), num_states, drawn)

    def untrained_from(self, tensor: MaskedTensor, gains: Values) -> Mapping[str, np.ndarray]:
        """Take the signs that most earlier states have."""
        return {flip_of(tensor.name): gains < 0}

    def gains(self, network: Network, scores: Scores) -> dict[str, Tensor]:
        """Compute the gains of biprop, with the opposite sign where the weight's sign changed."""
        found = super().gains(network, scores)
        return {n: g * (1 - 2 * scores[flip_of(n)].to(g.dtype)) for n, g in found.items()}

    def after_step(
        self, network: Network, scores: Scores, shared: Shared | None, progress: Progress
    ) -> None:
        """Change weights, if the interval has passed; see Method.after_step.

        A change after the last step would only harm, because no step would follow.
        """
        super().after_step(network, scores, shared, progress)
        if progress.step % self.every == 0 and progress.step != progress.steps:
            self.change(network, scores, progress)

    def bits(self, name: str, kept: Tensor, scores: Scores) -> Sequence[Bool[Tensor, "B ..."]]:
        """Make the two planes of one tensor; see Biprop.bits."""
        return [kept, kept & scores[flip_of(name)].bool()]


def flip_of(name: str) -> str:
    """Return the name of the scores that say which weights of a tensor have changed their signs."""
    return f"{name}.flip"
