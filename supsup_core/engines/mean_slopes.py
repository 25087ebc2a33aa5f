"""Slopes in a superposition with equal coefficients, for packed states that change between calls.

The engines prepare states that stay the same for many queries. For a learner on a stream, one state
changes between decisions: the mask in training. So the classes in this module keep nothing that
depends on a changing state.

Shape letters: C states, K images of a batch, R bytes of a packed row.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from supsup_core.bits.counts import OnesCounter, ones_fused
from supsup_core.bits.evidence import backward
from supsup_core.bits.scan import exact_products
from supsup_core.bits.threads import Threads
from supsup_core.engines.bits import BitsEngine
from supsup_core.engines.choose import engine_for, states_for
from supsup_core.inference.candidates import MeanSlopes
from supsup_core.inference.objectives import Objective
from supsup_core.networks.protocol import Network, Weights
from supsup_core.states.bits import superpose_counted
from supsup_core.states.layout import StateLayout

_CPU = torch.device("cpu")


def mean_slopes_for(
    network: Network, weights: Weights, layout: StateLayout, objective: Objective, num_real: int
) -> MeanSlopes:
    """Make the function that computes slopes on the CPU: a faster one if BitsEngine fits.

    Args:
        network: the fixed network.
        weights: a mapping from tensor name to the network's fixed weights.
        layout: the layout of the packed rows.
        objective: the objective.
        num_real: number of outputs that belong to a class.
    """
    if BitsEngine.fits(network, layout, _CPU):
        fixed = [weights[tensor.source] for tensor in network.tensors]
        return BitMeanSlopes(fixed, layout, objective, num_real)
    return PlainMeanSlopes(network, weights, layout, objective, num_real)


class PlainMeanSlopes:
    """Slopes that the network's engine computes. The arguments are those of mean_slopes_for."""

    def __init__(
        self,
        network: Network,
        weights: Weights,
        layout: StateLayout,
        objective: Objective,
        num_real: int,
    ) -> None:
        self._network, self._weights, self._layout = network, weights, layout
        self._objective, self._num_real = objective, num_real

    def __call__(
        self, rows: UInt8[np.ndarray, "C R"], images: Float[Tensor, "K ..."], num_fixed: int
    ) -> Float[Tensor, " C"]:
        """See MeanSlopes."""
        states = states_for(self._network, self._layout, rows, _CPU)
        engine = engine_for(self._network, self._weights, states, self._num_real)
        gradient = engine.gradient(images[None], self._objective)
        found: Tensor = gradient(torch.full((1, len(rows)), 1 / len(rows)))[0]
        return found


class BitMeanSlopes:
    """Slopes of masks with one keep plane per layer of an MLP, from counts and packed bits.

    The counts of the rows that stay the same (see `num_fixed` of MeanSlopes) are kept for later
    calls.

    Args:
        weights: for each layer, the fixed weights (outputs, inputs). Each weight is +c or -c.
        layout: the layout of the packed rows.
        objective: the objective.
        num_real: number of outputs that belong to a class.
    """

    def __init__(
        self, weights: Sequence[Tensor], layout: StateLayout, objective: Objective, num_real: int
    ) -> None:
        self._weights, self._layout = weights, layout
        self._objective, self._num_real = objective, num_real
        self._firsts = [plane.bits.start for plane in layout.planes]
        self._threads = Threads(1)
        self._fixed = OnesCounter(layout.row_bytes, self._threads)

    def __call__(
        self, rows: UInt8[np.ndarray, "C R"], images: Float[Tensor, "K ..."], num_fixed: int
    ) -> Float[Tensor, " C"]:
        """See MeanSlopes."""
        self._fixed.add(rows[self._fixed.num_tasks : num_fixed])
        others = ones_fused(rows, np.arange(num_fixed, len(rows)), self._threads)
        gains = superpose_counted(self._layout, self._fixed.counts + others, len(rows))
        effective = [w * gain for w, gain in zip(self._weights, gains.values(), strict=True)]
        (evidence,) = backward(
            self._weights,
            effective,
            self._firsts,
            images.flatten(1)[None],
            self._objective,
            self._num_real,
        )
        words = np.ascontiguousarray(rows).view(np.uint64)
        products = exact_products(words, evidence, np.arange(len(rows)), self._threads)
        return torch.from_numpy(products)
