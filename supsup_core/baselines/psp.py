"""Parameter superposition (PSP): all tasks train one network, each in a context of its own.

    binary:    y = W (o_t * x), with a random sign for each input of a layer
    rotation:  y = W C_t x, with a random orthogonal matrix C_t

The shared weights W are trained on one task after another. In the context of another task, what W
has learned looks like noise, so tasks disturb each other less than in one network without contexts
(the lower bound). The contexts are fixed, and drawn from the seed, so a state stores nothing. W
takes 4 bytes per weight, once.

Source: Cheung et al. 2019, arXiv:1902.05522, as a baseline of Wortsman et al. 2020. As in the
latter, contexts are not trained, and layers have no bias. W starts from the network's fixed random
weights. Wortsman et al. draw W from a Xavier normal distribution:
network_options.init=xavier_normal.
"""

from dataclasses import dataclass
from typing import Annotated

from supsup_core.baselines.contexts import CONTEXTS
from supsup_core.baselines.lower_bound import LowerBound
from supsup_core.knobs import Knob, check_knobs
from supsup_core.methods.protocol import WeightsOfTask
from supsup_core.networks.protocol import Network, Weights
from supsup_core.streams import Role, stream


@dataclass(frozen=True)
class PSP(LowerBound):
    """The baseline that trains one network on all tasks, with a random context for each task.

    Raises:
        ValueError: context is unknown.
    """

    context: Annotated[
        str,
        Knob(
            "Context of a task. rotation: a random orthogonal matrix multiplies the inputs of each "
            "layer. binary: a random sign multiplies each input of each layer.",
            one_of=tuple(CONTEXTS),
        ),
    ] = "rotation"

    def __post_init__(self) -> None:
        check_knobs(PSP, vars(self))

    @property
    def weights_rule(self) -> str:
        """The rule of `weights_of_task` in words; see Method.weights_rule."""
        return (
            "layer i (from 0) of task t has the weights "
            f"{CONTEXTS[self.context].rule}; w are the trained weights, flattened to (outputs, I); "
            f"g = Generator(Philox(SeedSequence(seed, spawn_key=({int(Role.CONTEXTS)}, t, i)))) of "
            "numpy.random"
        )

    def weights_of_task(self, network: Network, task_id: int, seed: int) -> WeightsOfTask:
        """Return the function from W to the weights in a task's context; see the base class.

        The contexts are drawn once, in this method, and not again for each call of the function.
        """
        kind = CONTEXTS[self.context]
        drawn = {
            tensor.source: kind.draw(tensor.fan_in, stream(seed, Role.CONTEXTS, task_id, i))
            for i, tensor in enumerate(network.tensors)
        }

        def in_context(weights: Weights) -> Weights:
            found = {}
            for name, weight in weights.items():
                flat = weight.reshape(len(weight), -1)
                # Later calls then need no conversion.
                drawn[name] = drawn[name].to(flat)
                found[name] = kind.apply(flat, drawn[name]).reshape(weight.shape)
            return found

        return in_context
