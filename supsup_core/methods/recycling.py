"""Iterative weight recycling: weights with low scores are overwritten by weights with high scores.

At intervals, the positions of each tensor are sorted by |score|. The weights of the K = floor(r n)
lowest positions are overwritten by the weights of the K highest positions, in the same order. The
scores stay unchanged. The mask is found by the rule of edge-popup, or of biprop
(method_options.magnitudes). The fixed weights have two values, so a task stores a second bit for
each weight: whether the weight has changed its sign.

Source: Gorbett & Whitley 2023, "Randomly Initialized Subnetworks with Iterative Weight Recycling",
and the authors' code. The text does not give r or the interval. The defaults are one fifth, and 469
steps: one epoch of MNIST in batches of 128 images, as in the recipes of SupSup. The interval is a
number of steps, and no fraction of the training, because a mask that follows a stream trains for a
number of steps that nobody knows at the start.
"""

from dataclasses import dataclass
from typing import Annotated

import torch

from supsup_core.knobs import Knob
from supsup_core.methods.biprop import magnitude_of
from supsup_core.methods.changed_weights import ChangedWeights, flip_of
from supsup_core.methods.protocol import Progress, Scores
from supsup_core.networks.protocol import Network


@dataclass(frozen=True)
class Recycling(ChangedWeights):
    """The finder that overwrites weights of low |score| by weights of high |score|.

    Raises:
        ValueError: an option is out of range.
    """

    rate: Annotated[
        float,
        Knob("Fraction of each tensor's weights that are overwritten.", at_least=0, at_most=0.5),
    ] = 0.2

    def change(self, network: Network, scores: Scores, progress: Progress) -> None:
        """Overwrite weights; see ChangedWeights.change."""
        weights = network.weights(progress.seed)
        for tensor in network.tensors:
            count = int(self.rate * tensor.num_gains)
            if not count:
                continue
            order = scores[tensor.name].detach().abs().flatten(1).argsort(dim=1, stable=True)
            low, high = order[:, :count], order[:, -count:]
            flips = scores[flip_of(tensor.name)]
            negative = (weights[tensor.source] < 0).to(flips.device).expand_as(flips)
            signs = (negative ^ flips).flatten(1)
            signs = signs.scatter(1, low, signs.gather(1, high)).view_as(flips)
            flips.copy_(torch.logical_xor(signs, negative))
            if self.has_scale:
                sizes = scores[magnitude_of(tensor.name)].detach().view(len(flips), -1)
                sizes.scatter_(1, low, sizes.gather(1, high))
