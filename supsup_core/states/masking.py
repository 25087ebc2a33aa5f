"""What the bits of a mask stand for: weights of the network, or its hidden units.

Either way a mask, or what lies between masks, is a gain for every bit, and logits are a
function of gains and images. Shape letters: A masks (or none: one mask), N images, P pixels,
S outputs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from supsup_core.networks.mlp import Network, forward
from supsup_core.networks.units import NORM_EPSILON, logits_of_drives, normalised
from supsup_core.states.layout import MaskLayout

# Gains of each layer, shaped as its mask, -> logits (*A, N, S) of the images at hand.
Logits = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Masking:
    """One meaning of a mask's bits.

    Attributes:
        over: "weights" or "units".
        activation: what follows a hidden layer, for people who read the masks.
        normalises: whether logits of an image depend on the others of its batch.
        layout: of packed rows, for a network.
        on: weights (O, I) of each layer and images (*A, N, P), normalised -> their logits as a
            function of gains. What no gain changes is computed once.
    """

    over: str
    activation: str
    normalises: bool
    layout: Callable[[Network], MaskLayout]
    on: Callable[[Sequence[Float[Tensor, "_ _"]], Float[Tensor, "*A N P"]], Logits]


def _over_weights(
    weights: Sequence[Float[Tensor, "_ _"]], images: Float[Tensor, "*A N P"]
) -> Logits:
    return lambda gains: forward(
        [weight * gain for weight, gain in zip(weights, gains, strict=True)], images
    )


def _over_units(weights: Sequence[Float[Tensor, "_ _"]], images: Float[Tensor, "*A N P"]) -> Logits:
    drives = normalised(weights[0] @ images.transpose(-1, -2), NORM_EPSILON)
    return lambda gains: logits_of_drives(weights[1:], gains, drives)


WEIGHTS = Masking("weights", "relu", False, MaskLayout.of, _over_weights)
UNITS = Masking("units", "swish of normalised", True, MaskLayout.of_units, _over_units)
