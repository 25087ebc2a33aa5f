"""Iterative randomisation (IteRand): dropped weights are drawn again from time to time.

At intervals, each weight that the mask drops is drawn again with a probability. The scores stay
unchanged. The mask is found by the rule of edge-popup, or of biprop (method_options.magnitudes).
The fixed weights have two values, so a task stores a second bit for each weight: whether the weight
has changed its sign. A weight that is drawn again changes its sign with the probability 1/2.

Source: Chijiwa et al. 2021, arXiv:2106.09269. They draw weights again every 300 steps, with the
probability 0.1 (CIFAR-10).
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from supsup_core.knobs import Knob
from supsup_core.methods.biprop import magnitude_of
from supsup_core.methods.changed_weights import ChangedWeights, Interval, flip_of
from supsup_core.methods.protocol import Progress, Scores
from supsup_core.networks.protocol import Network
from supsup_core.streams import Role, stream


@dataclass(frozen=True)
class IteRand(ChangedWeights):
    """The finder that draws dropped weights again at intervals, and keeps the top share.

    Raises:
        ValueError: an option is out of range.
    """

    every: Interval = 300
    probability: Annotated[
        float,
        Knob("Probability that a dropped weight is drawn again.", at_least=0, at_most=1),
    ] = 0.1

    def change(self, network: Network, scores: Scores, progress: Progress) -> None:
        """Draw dropped weights again; see ChangedWeights.change."""
        masks = self.masks(network, scores, self._density(scores))
        for index, tensor in enumerate(network.tensors):
            flips = scores[flip_of(tensor.name)]
            for b, task_id in enumerate(progress.task_ids):
                own = stream(progress.seed, Role.REDRAWS, task_id, progress.step, index)
                drawn = own.random(tensor.shape, dtype=np.float32) < self.probability
                chosen = torch.from_numpy(drawn).to(flips.device) & ~masks[tensor.name][b]
                signs = own.integers(0, 2, tensor.shape, np.int8).astype(np.bool_)
                _write(torch.from_numpy(signs), chosen, flips[b])
                if self.has_scale:
                    sizes = scores[magnitude_of(tensor.name)].detach()
                    fresh = torch.from_numpy(self.draw_magnitudes(tensor.shape, own))
                    _write(fresh, chosen, sizes[b])


def _write(values: Tensor, where: Bool[Tensor, "..."], to: Tensor) -> None:
    """Copy values to the places where a mask is True. A GPU does not make the host wait for it."""
    to.copy_(torch.where(where, values.to(to), to))
