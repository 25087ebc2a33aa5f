"""The base class of baselines whose tasks share weights that task 0 may train.

The trunk is the weights that all tasks share. With trunk=random, they are the fixed random weights
of the network. With trunk=trained, task 0 trains them together with what every task trains, from
these random weights. All later tasks use the trunk as task 0 has left it. A trained trunk takes 4
bytes per weight, once.

Source: Wortsman et al. 2020, who train BatchE and separate heads in both ways.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from torch import Tensor

from supsup_core.baselines.gains_of_floats import FloatMethod
from supsup_core.knobs import Knob, check_knobs
from supsup_core.methods.protocol import Scores, Shared
from supsup_core.methods.trained_weights import as_shared, first_weights, weights_in
from supsup_core.networks.protocol import MaskedTensor, Network

RANDOM, TRAINED = TRUNKS = ("random", "trained")


@dataclass(frozen=True)
class TrunkMethod(FloatMethod):
    """A finder whose states have floats, and whose tasks share the weights of a trunk.

    Raises:
        ValueError: trunk is unknown.
    """

    trunk: Annotated[
        str,
        Knob(
            "Weights that all tasks share. random: fixed random weights. trained: task 0 trains "
            "them, and later tasks keep them.",
            one_of=TRUNKS,
        ),
    ] = RANDOM

    def __post_init__(self) -> None:
        check_knobs(type(self), vars(self))

    @abstractmethod
    def trunk_tensors(self, network: Network) -> Sequence[MaskedTensor]:
        """Return the tensors whose weights belong to the trunk."""

    @property
    def order(self) -> Literal["any", "after_first"]:
        """See Method.order. Later tasks need a trained trunk."""
        return "after_first" if self.trunk == TRAINED else "any"

    def shared_shapes(self, network: Network) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of the trunk's weights, if they are trained."""
        if self.trunk == RANDOM:
            return {}
        return {tensor.source: tensor.shape for tensor in self.trunk_tensors(network)}

    def trunk_scores(
        self, network: Network, seed: int, shared: Shared | None
    ) -> dict[str, np.ndarray]:
        """Return the trunk's weights as first scores, if this task trains them.

        Args:
            network: the network.
            seed: the run's seed.
            shared: data from earlier tasks; see Method.begin.
        """
        return {} if shared else first_weights(network, self.shared_shapes(network), seed)

    def trained_weights(self, network: Network, scores: Scores) -> dict[str, Tensor]:
        """Return the trunk's weights, if they are in training; see Method.trained_weights.

        Raises:
            ValueError: the scores have a trunk, and are those of several tasks.
        """
        return weights_in(scores, self.shared_shapes(network))

    def pass_on(self, network: Network, scores: Scores, shared: Shared | None) -> Shared:
        """Return the trunk's weights after task 0, in float32."""
        return as_shared(self.trained_weights(network, scores))
