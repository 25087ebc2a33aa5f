"""WSN (Winning SubNetworks): masks and weights are trained together, in each step.

The scores of a task continue from the scores of the previous task. Weights that an earlier mask
keeps do not change.

Source: Kang et al. 2022, "Forget-free Continual Learning with Winning Subnetworks". Their networks
have a dense last layer for each task. Here, the last layer is masked and shared, as all other
layers are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from supsup_core.knobs import Knob, check_knobs
from supsup_core.methods.protocol import Scores, Shared, of_one_task
from supsup_core.methods.shared_weights import SharedWeights
from supsup_core.methods.trained_weights import as_shared
from supsup_core.networks.protocol import Network

_SCORES = "scores "  # prefix of the shared scores. The name of a masked tensor follows.


@dataclass(frozen=True)
class WSN(SharedWeights):
    """The finder that trains edge-popup masks and the free weights at the same time.

    Raises:
        ValueError: density or kappa is out of range.
    """

    density: Annotated[
        float, Knob("Fraction of each tensor's weights that a mask keeps.", above=0, at_most=1)
    ] = 0.3

    def __post_init__(self) -> None:
        check_knobs(WSN, vars(self))

    def shared_shapes(self, network: Network) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of the weights, of the bits of taken weights, and of the scores."""
        scores = {_SCORES + tensor.name: tensor.shape for tensor in network.tensors}
        return {**super().shared_shapes(network), **scores}

    def begin(
        self, network: Network, task_id: int, seed: int, shared: Shared | None = None
    ) -> dict[str, np.ndarray]:
        """Return the scores and weights after the previous task; see SharedWeights.begin."""
        begun = super().begin(network, task_id, seed, shared)
        for tensor in network.tensors:
            if shared and (name := _SCORES + tensor.name) in shared:
                begun[tensor.name] = shared[name].copy()
        return begun

    def pass_on(self, network: Network, scores: Scores, shared: Shared | None) -> Shared:
        """Return the weights, the taken weights and the scores after the task."""
        last = {_SCORES + t.name: of_one_task(scores[t.name]) for t in network.tensors}
        return {**super().pass_on(network, scores, shared), **as_shared(last)}
