"""ExSSNeT: a task first finds a mask by edge-popup, then trains the free weights of its mask.

A training has two phases. The first phase trains scores, with all weights fixed. The second phase
trains the weights that the mask keeps, with all scores fixed. Weights that an earlier mask keeps
do not change. The learning rate follows the recipe over both phases together.

Each mask takes up to the fraction `density` of the weights, so few free weights are left after
1 / density tasks. Later masks then choose among trained weights.

Source: Yadav & Bansal, "Exclusive Supermask Subnetwork Training for Continual Learning"
(ExSSNeT). SSNeT in their text trains all weights of a mask, and forgets: exclusive=false. They
train for 50 to 100 epochs of scores and 50 epochs of weights, with Adam.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

from supsup_core.knobs import Knob, check_knobs
from supsup_core.methods.shared_weights import SharedWeights
from supsup_core.networks.protocol import Network


@dataclass(frozen=True)
class ExSSNeT(SharedWeights):
    """The finder of edge-popup masks that then trains the weights of a mask which are still free.

    Raises:
        ValueError: an option is out of range.
    """

    density: Annotated[
        float, Knob("Fraction of each tensor's weights that a mask keeps.", above=0, at_most=1)
    ] = 0.1
    weight_share: Annotated[
        float,
        Knob(
            "Fraction of a task's steps that train weights. The steps before them train scores. "
            "With 0, the masks are those of edge_popup.",
            at_least=0,
            at_most=1,
        ),
    ] = 0.33
    exclusive: Annotated[
        bool,
        Knob(
            "true: a task trains only weights that no earlier mask keeps (ExSSNeT). false: a task "
            "trains all weights of its mask, so earlier tasks are forgotten (SSNeT)."
        ),
    ] = True

    def __post_init__(self) -> None:
        check_knobs(ExSSNeT, vars(self))

    def trained_names(
        self, network: Network, names: Collection[str], step: int, steps: int
    ) -> Collection[str]:
        """Return the names of the masked tensors in the first phase, else those of the weights."""
        scores = {tensor.name for tensor in network.tensors}
        if step < steps - round(self.weight_share * steps):
            return scores
        return [name for name in names if name not in scores]
