"""Random search: the best of some random masks, without any training step.

Each candidate keeps a fixed fraction of each tensor's weights, chosen at random. SearchTrainer
computes the loss of one candidate per step, always on the same training images, and keeps the
candidate with the smallest loss. So train.steps is the number of candidates.

The number of the best candidate would be enough to draw its mask again, and takes 8 bytes. The
stored state is nevertheless the mask itself, as for other finders, so that anyone can read it.

Source: after Farahani 2024, who finds that a subnetwork chosen in this way is no better than a
random subnetwork. It shows how much of a result is due to the choice among many masks alone.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from supsup_core.knobs import Knob, check_knobs
from supsup_core.methods.first_scores import uniform_scores
from supsup_core.methods.planes import KeepMethod, kept_count, top_share
from supsup_core.methods.protocol import Shared
from supsup_core.networks.protocol import MaskedTensor, Network
from supsup_core.streams import Role, stream


@dataclass(frozen=True)
class RandomSearch(KeepMethod):
    """The finder that keeps the best of train.steps random masks, and trains nothing.

    Raises:
        ValueError: density is out of range.
    """

    density: Annotated[
        float, Knob("Fraction of each tensor's weights that a mask keeps.", above=0, at_most=1)
    ] = 0.5

    def __post_init__(self) -> None:
        check_knobs(RandomSearch, vars(self))

    @property
    def searches(self) -> bool:
        """Return True, because SearchTrainer chooses among candidates; see Method.searches."""
        return True

    def begin(
        self, network: Network, task_id: int, seed: int, shared: Shared | None = None
    ) -> dict[str, np.ndarray]:
        """Draw the scores of the first candidate."""
        return self.candidate(network, task_id, seed, 0)

    def candidate(
        self, network: Network, task_id: int, seed: int, number: int
    ) -> dict[str, np.ndarray]:
        """Draw the scores of one candidate; see Method.candidate."""
        return {
            tensor.name: uniform_scores(tensor, stream(seed, Role.CANDIDATES, task_id, number, i))
            for i, tensor in enumerate(network.tensors)
        }

    def mask(self, tensor: MaskedTensor, scores: Tensor) -> Bool[Tensor, "B ..."]:
        """Keep the largest scores. The scores are random, so the mask is random too."""
        return top_share(scores, kept_count(self.density, tensor.num_gains))
