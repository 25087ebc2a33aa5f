"""Make a network from any torch.nn.Module. Tasks mask some of the module's parameters.

By default, masked weights are signed Kaiming constants, +c or -c with c = sqrt(2 / fan_in). All
other parameters keep the values that they have in the module.

Shape letters: B states, N inputs, S outputs.
"""

from collections.abc import Mapping, Sequence
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from supsup_core.names import SIGNED_CONSTANT
from supsup_core.networks.initial import DrawnModule
from supsup_core.networks.mlp import draw_weights
from supsup_core.networks.protocol import (
    Floats,
    FloatSpec,
    Gains,
    Logits,
    MaskedTensor,
    Network,
    Weights,
)
from supsup_core.networks.running import Run, run_each, run_one, run_together
from supsup_core.networks.skeleton import (
    Masked,
    Skeleton,
    inputs_of_layer,
    masked_parameters,
    try_out,
)

# B states can run together, by vmap, or one after another, in a loop. vmap replaces the
# convolutions of B states by one grouped convolution. The CPU has no fast kernel for a grouped
# convolution. A training step of small_conv was measured with batches of 128 images on one thread
# of an AMD EPYC, with 4 and 8 tasks, and with images that the tasks shared or did not share
# (benchmarks/module_step.py). In milliseconds per task, vmap takes 66 to 84, a grouped convolution
# without vmap takes 55 to 73, a loop over the tasks takes 56 to 63, and a loop with the layout
# "channels last" takes 31 to 38. But a loop costs 1 to 2 ms per state, which matters if a state has
# little to compute. vmap and the loop take the same time if one state has about this many
# activations, for all inputs together. For small_conv, this is between 2 and 4 inputs of 28x28
# pixels, or 256 inputs of 8x8 pixels. For LeNet-300-100, vmap and the loop take the same time at
# any number of inputs. Devices other than the CPU always use vmap, because vmap starts fewer
# kernels; this was not measured.
LEAST_VALUES_OF_LOOP = 2**17


class ModuleNetwork:
    """A network (see networks/protocol.py) that runs a torch.nn.Module.

    The module runs in evaluation mode, so dropout does nothing. The network copies the structure
    of the module, the buffers, and the parameters that are not masked. The module itself stays
    unchanged. The copied values do not depend on the seed of `weights`. If the module draws these
    values at random, make the module from a fixed seed.

    Args:
        name: the network's name, which logs and tables show.
        module: a module that maps inputs (N, *input_shape) to logits (N, S).
        input_shape: shape of one input.
        activation: name of the activation function of the hidden layers, as information for users.
        masked: the parameters to mask. This is a list of patterns of parameter names, as in
            fnmatch, or a function (name, parameter) -> bool. If None, the weights of all Linear and
            Conv layers are masked.
        init: distribution of the masked weights, one of INITS.

    Attributes:
        name: the argument `name`.
        activation: the argument `activation`.
        input_shape: the argument `input_shape`, as a tuple.
        tensors: the masked parameters, in the module's order.
        num_outputs: S, the number of outputs: real and superfluous neurons together.
        normalises: whether the module has batch normalisation.
        has_constants: whether all weights of a masked tensor have the same magnitude.
        num_activations: number of values that all layers together output for one input.

    Raises:
        ValueError: a masked layer has a bias that is not masked, no parameter is masked, a
            normalisation layer has unsupported running statistics, the outputs do not have the
            shape (N, S), or the module gives random outputs.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        input_shape: Sequence[int],
        activation: str = "relu",
        masked: Masked | None = None,
        init: str = SIGNED_CONSTANT,
    ) -> None:
        self.name = name
        self.activation = activation
        self.input_shape = tuple(input_shape)
        found = masked_parameters(module, masked)
        self.tensors = tuple(
            MaskedTensor(key, tuple(weight.shape), fan_in=prod(weight.shape[1:]), source=key)
            for key, weight in found.items()
        )
        self._init = init
        self.has_constants = init == SIGNED_CONSTANT
        self._skeleton = Skeleton.of(module, found)
        self._copied: dict[torch.device, Weights] = {}
        self.normalises = self._skeleton.normalises
        self.num_outputs, self.num_activations = try_out(self._skeleton, found, self.input_shape)

    def weights(self, seed: int) -> dict[str, Tensor]:
        """Draw the masked weights, and copy the other parameters and the float buffers.

        By default, each masked weight is +sqrt(2 / fan_in) or -sqrt(2 / fan_in). The weights of a
        masked tensor depend only on the seed, on the index of the tensor, on its shape and on the
        argument `init`.

        Returns:
            A mapping from the name of each parameter and float buffer to its values.
        """
        fixed = {name: value.clone() for name, value in self._skeleton.fixed.items()}
        return draw_weights(self.tensors, seed, self._init) | fixed

    def float_specs(self) -> tuple[FloatSpec, ...]:
        """Describe the running means and variances of the batch normalisation layers."""
        return self._skeleton.statistics

    def logits(
        self,
        weights: Weights,
        gains: Gains,
        inputs: Float[Tensor, "..."],
        floats: Floats | None = None,
        *,
        track: bool = False,
    ) -> Float[Tensor, "*B N S"]:
        """Compute logits; see Network.logits.

        Raises:
            ValueError: the gains, the floats or the inputs have a wrong shape, or they are for
                different numbers of states.
        """
        num_states = self._num_states(gains, floats or {})
        own = self._have_own(inputs, num_states)
        state = {t.source: weights[t.source] * gains[t.name] for t in self.tensors}
        if floats is not None:
            state |= {spec.name: floats[spec.name] for spec in self.float_specs()}
        run = self._runner(weights, inputs.device, given=floats is not None, track=track)
        if num_states is None:
            return run_one(run, state, inputs)
        num_values = inputs.shape[1 if own else 0] * self.num_activations
        if inputs.device.type == "cpu" and num_values >= LEAST_VALUES_OF_LOOP:
            return run_each(run, state, inputs, own=own)
        return run_together(run, state, inputs, own=own)

    def tracked_logits(
        self,
        weights: Weights,
        effective: Mapping[str, Tensor],
        images: Float[Tensor, "N ..."],
        floats: Floats,
    ) -> Float[Tensor, "N S"]:
        """Compute the logits of one state in training, from its effective weights.

        The network normalises with the statistics of the batch, and moves `floats` towards these
        statistics in place.

        Args:
            weights: the fixed weights, from the method `weights`.
            effective: a mapping from the name of each masked parameter to its effective weights.
                Filters and images should have the layout "channels last".
            images: normalised inputs.
            floats: a mapping from name to running statistics.
        """
        run = self._runner(weights, images.device, given=bool(floats), track=True)
        return run({**effective, **floats}, images)

    def _runner(self, weights: Weights, device: torch.device, *, given: bool, track: bool) -> Run:
        """Return a function that runs the module, from the tensors of a state and the inputs."""
        shared = {name: weights[name] for name in self._skeleton.fixed}
        shared |= self._others_on(device)
        module = self._skeleton.module(given=given, track=track)

        def run(state: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
            found: Tensor = functional_call(module, {**shared, **state}, (inputs,))
            return found

        return run

    def _others_on(self, device: torch.device) -> Weights:
        """Return the buffers that are not floats. They are copied to each device only once."""
        if device not in self._copied:
            self._copied[device] = {n: b.to(device) for n, b in self._skeleton.others.items()}
        return self._copied[device]

    def features(
        self,
        weights: Weights,
        gains: Gains,
        inputs: Float[Tensor, "N ..."],
        floats: Floats | None = None,
    ) -> Float[Tensor, "N F"]:
        """Compute the inputs of the layer with the last masked tensor; see Network.features.

        If the layer runs more than once, these are the inputs of its last run. Inputs with more
        than two axes are flattened.

        Raises:
            ValueError: the layer does not get a tensor with a row per input.
        """
        last = self.tensors[-1]
        module = self._skeleton.module(given=floats is not None, track=False)
        with inputs_of_layer(module, last.source) as seen:
            self.logits(weights, gains, inputs, floats)
        found = seen[-1] if seen else None
        if not isinstance(found, Tensor) or found.ndim < 2 or len(found) != len(inputs):
            raise ValueError(
                f"the layer of {last.source} must get a tensor with a row per image, got "
                f"{type(found).__name__}: choose a transfer that needs no features"
            )
        return found.flatten(1)

    def on_inputs(self, weights: Weights, inputs: Float[Tensor, "..."]) -> Logits:
        """Return a function from gains to logits; see Network.on_inputs."""
        return lambda gains: self.logits(weights, gains, inputs)

    def _num_states(self, gains: Gains, floats: Floats) -> int | None:
        """Return B, the number of states; None if gains and floats have no axis of states."""
        shapes = {tensor.name: tensor.shape for tensor in self.tensors}
        specs = {spec.name: spec.shape for spec in self.float_specs()} if floats else {}
        leading = set()
        for values, expected in ((gains, shapes), (floats, specs)):
            for name, shape in expected.items():
                got = tuple(values[name].shape)
                split = len(got) - len(shape)
                if got[max(split, 0) :] != shape or split > 1:
                    raise ValueError(f"{name} must have shape (B, *{shape}) or {shape}, got {got}")
                leading.add(got[:split])
        if len(leading) > 1:
            raise ValueError(
                f"gains and floats must be for the same number of states, got {sorted(leading)}"
            )
        return next(iter(leading.pop()), None)

    def _have_own(self, inputs: Tensor, num_states: int | None) -> bool:
        """Return True if each state has its own inputs, False if all states share the inputs."""
        split = inputs.ndim - len(self.input_shape)
        fits = split in (1, 2) and tuple(inputs.shape[split:]) == self.input_shape
        if not fits or (split == 2 and inputs.shape[0] != num_states):
            raise ValueError(
                f"inputs must have shape (N, *{self.input_shape}) or (B, N, *{self.input_shape}) "
                f"with B = {num_states}, got {tuple(inputs.shape)}"
            )
        return split == 2


def as_network(
    name: str, made: object, input_shape: Sequence[int], activation: str = "relu"
) -> Network:
    """Convert an object into a network.

    Args:
        name: the network's name, which logs and tables show.
        made: a network, which is returned unchanged, or a torch.nn.Module, which is converted.
        input_shape: shape of one input.
        activation: name of the activation function of the module's hidden layers.

    Raises:
        ValueError: `made` is neither a network nor a module, or ModuleNetwork refuses the module.
    """
    if isinstance(made, Network):
        return made
    if isinstance(made, nn.Module):
        init = made.init if isinstance(made, DrawnModule) else SIGNED_CONSTANT
        return ModuleNetwork(name, made, input_shape, activation, init=init)
    raise ValueError(f"network {name} must be a Network or an nn.Module, got {type(made).__name__}")
