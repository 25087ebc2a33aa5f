"""Baselines with trained weights: a network per task (upper bound), or a head per task.

The fixed weights W must be signed constants, +c or -c. The gain of a weight is score / c, so the
effective weight is sign(W) * score. Optimisers treat positive and negative numbers alike, so
training the scores is the same as training the weights. A state stores the gains of the trained
tensors.

Source: the baselines "upper bound" and "separate heads" of Wortsman et al. 2020. The paper gives
each task of the upper bound a network of its own. In the authors' code, a task continues from the
weights of the previous task, and is measured before the next task changes them.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from torch import Tensor

from supsup_core.baselines.gains_of_floats import FloatMethod
from supsup_core.baselines.trunk import TrunkMethod
from supsup_core.knobs import Knob, check_knobs
from supsup_core.methods.protocol import Scores, Shared, of_one_task
from supsup_core.methods.trained_weights import as_shared
from supsup_core.names import SIGNED_CONSTANT
from supsup_core.networks.mlp import signed_constant
from supsup_core.networks.protocol import FloatSpec, MaskedTensor, Network
from supsup_core.states.layout import TaskState
from supsup_core.streams import Role, stream

RANDOM, PREVIOUS = STARTS = ("random", "previous")


class OwnWeights(FloatMethod):
    """The base class of baselines that train and store weights for each task.

    The first weights have a normal distribution with the variance 2 / fan_in (He et al. 2015).
    """

    @abstractmethod
    def trained(self, network: Network) -> Sequence[MaskedTensor]:
        """Return the tensors whose weights are trained and stored for each task."""

    def float_specs(self, network: Network) -> list[FloatSpec]:
        """Describe the gains of the trained tensors.

        Raises:
            ValueError: the weights of the network are no signed constants.
        """
        if not network.has_constants:
            raise ValueError(
                f"network_options.init must be {SIGNED_CONSTANT} for a method that trains weights, "
                "got another distribution"
            )
        return [
            FloatSpec(f"{tensor.name}.gain", "head", tensor.shape, tensor=tensor.name)
            for tensor in self.trained(network)
        ]

    def begin(
        self, network: Network, task_id: int, seed: int, shared: Shared | None = None
    ) -> dict[str, np.ndarray]:
        """Draw the first weights of one task; see Method.begin."""
        return {
            f"{tensor.name}.gain": np.float32(signed_constant(tensor.fan_in))
            * stream(seed, Role.SCORES, task_id, i).standard_normal(tensor.shape, np.float32)
            for i, tensor in enumerate(self.trained(network))
        }

    def gains(self, network: Network, scores: Scores) -> dict[str, Tensor]:
        """Compute the gains of all tensors. The gains of tensors that are not trained are ones."""
        some = next(iter(scores.values()))
        found = {t.name: some.new_ones((len(some), *t.shape)) for t in network.tensors}
        for tensor in self.trained(network):
            found[tensor.name] = scores[f"{tensor.name}.gain"] / signed_constant(tensor.fan_in)
        return found

    def end(self, network: Network, scores: Scores) -> list[TaskState]:
        """Make the states of B tasks: the gains of the trained tensors."""
        gains = self.gains(network, scores)
        trained = self.trained(network)
        return super().end(network, {f"{t.name}.gain": gains[t.name] for t in trained})


@dataclass(frozen=True)
class UpperBound(OwnWeights):
    """The baseline that trains and stores all weights of a network for each task.

    Raises:
        ValueError: start is unknown.
    """

    start: Annotated[
        str,
        Knob(
            "First weights of a task. random: each task draws its own weights. previous: a task "
            "continues from the weights of the previous task, as in the authors' code.",
            one_of=STARTS,
        ),
    ] = RANDOM

    def __post_init__(self) -> None:
        check_knobs(type(self), vars(self))

    @property
    def order(self) -> Literal["any", "sequence"]:
        """See Method.order. With start=previous, a task needs the previous task."""
        return "sequence" if self.start == PREVIOUS else "any"

    def trained(self, network: Network) -> Sequence[MaskedTensor]:
        """Return all masked tensors."""
        return network.tensors

    def shared_shapes(self, network: Network) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of the scores that the next task starts from, with start=previous."""
        if self.start == RANDOM:
            return {}
        return {spec.name: spec.shape for spec in self.float_specs(network)}

    def begin(
        self, network: Network, task_id: int, seed: int, shared: Shared | None = None
    ) -> dict[str, np.ndarray]:
        """Return the scores after the previous task, or draw scores; see Method.begin."""
        if not shared:
            return super().begin(network, task_id, seed, shared)
        return {name: shared[name].copy() for name in self.shared_shapes(network)}

    def pass_on(self, network: Network, scores: Scores, shared: Shared | None) -> Shared:
        """Return the scores after the task, in float32, with start=previous."""
        return as_shared({n: of_one_task(scores[n]) for n in self.shared_shapes(network)})


@dataclass(frozen=True)
class Heads(TrunkMethod, OwnWeights):
    """The baseline that trains and stores the last layer for each task. All tasks share the trunk.

    The trunk is all other layers. It is random, or task 0 trains it; see trunk.py.
    """

    def trunk_tensors(self, network: Network) -> Sequence[MaskedTensor]:
        """Return the tensors of all layers but the last one."""
        return network.tensors[:-1]

    def trained(self, network: Network) -> Sequence[MaskedTensor]:
        """Return the tensor of the last layer."""
        return network.tensors[-1:]

    def begin(
        self, network: Network, task_id: int, seed: int, shared: Shared | None = None
    ) -> dict[str, np.ndarray]:
        """Draw the first weights of the head, and add the trunk if this task trains it."""
        head = super().begin(network, task_id, seed, shared)
        return head | self.trunk_scores(network, seed, shared)
