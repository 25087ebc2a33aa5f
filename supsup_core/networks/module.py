"""Make a network of any torch.nn.Module: some of its weights are fixed signs, which a task masks.

Masked weights are signed Kaiming constants, +c or -c with c = sqrt(2 / fan_in). All other
parameters keep the values that the module was made with.

Shape letters: B states, N inputs, S outputs.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

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
from supsup_core.networks.skeleton import Masked, Skeleton, masked_parameters, try_out

# vmap makes one grouped convolution of the convolutions of B states, for which the CPU has no
# fast kernel. A training step of small_conv, batches of 128, one thread of an AMD EPYC, in
# milliseconds a task (4 and 8 tasks, shared and own images): vmap 66 to 84, a grouped convolution
# by hand 55 to 73, a loop over the tasks 56 to 63, the loop with channels last 31 to 38
# (benchmarks/module_step.py). But a loop pays 1 to 2 ms a state, which counts if the state has
# little to do. The two meet at about this many activations of one state, all its inputs together:
# small_conv on 28x28 images between 2 and 4 inputs, on 8x8 images at 256, LeNet-300-100 at any
# size. A device is left to vmap, which starts fewer kernels; that was not measured.
LEAST_VALUES_OF_LOOP = 2**17


class ModuleNetwork:
    """A network (see networks/protocol.py) that runs a torch.nn.Module.

    The module runs in evaluation mode, so dropout does nothing. It is neither changed nor kept:
    the network holds its structure, and the values of the parameters that are not masked and of
    the buffers. Those of floats are part of `weights`, the same for every seed. If a module draws
    them at random, make it from a fixed seed.

    Args:
        name: for people and tables.
        module: maps inputs (N, *input_shape) to logits (N, S).
        input_shape: the shape of one input.
        activation: what follows a hidden layer, for people who read the masks.
        masked: which parameters are masked: patterns of their names, as in fnmatch; or a function
            of name and parameter. None: the weights of all Linear and Conv layers.

    Attributes:
        name: as given.
        activation: as given.
        input_shape: as given.
        tensors: the masked parameters, in the module's order.
        num_outputs: S.
        normalises: whether the module has batch normalisation.
        num_activations: values that all layers put out for one input.

    Raises:
        ValueError: a masked layer has a bias, nothing is masked, a normalisation keeps statistics
            in an unknown way, outputs are not (N, S), or the module draws random numbers.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        input_shape: Sequence[int],
        activation: str = "relu",
        masked: Masked | None = None,
    ) -> None:
        self.name = name
        self.activation = activation
        self.input_shape = tuple(input_shape)
        found = masked_parameters(module, masked)
        self.tensors = tuple(
            MaskedTensor(key, tuple(weight.shape), fan_in=prod(weight.shape[1:]), source=key)
            for key, weight in found.items()
        )
        self._skeleton = Skeleton.of(module, found)
        self.normalises = self._skeleton.normalises
        self.num_outputs, self.num_activations = try_out(self._skeleton, found, self.input_shape)

    def weights(self, seed: int) -> dict[str, Tensor]:
        """Draw the masked weights, +-sqrt(2 / fan_in), and copy all that is fixed.

        The weights of a masked tensor depend on seed, index of the tensor and shape alone.
        """
        fixed = {name: value.clone() for name, value in self._skeleton.fixed.items()}
        return draw_weights(self.tensors, seed) | fixed

    def float_specs(self) -> tuple[FloatSpec, ...]:
        """List the running mean and variance of each layer of batch normalisation."""
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
            ValueError: gains, floats or inputs of a shape that does not fit.
        """
        num_states = self._num_states(gains, floats or {})
        own = self._have_own(inputs, num_states)
        state = {t.source: weights[t.source] * gains[t.name] for t in self.tensors}
        if floats is not None:
            state |= {spec.name: floats[spec.name] for spec in self.float_specs()}
        shared = {name: weights[name] for name in self._skeleton.fixed}
        shared |= {name: b.to(inputs.device) for name, b in self._skeleton.others.items()}
        module = self._skeleton.module(given=floats is not None, track=track)

        def run(state: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
            found: Tensor = functional_call(module, {**shared, **state}, (inputs,))
            return found

        if num_states is None:
            return _run_one(run, state, inputs)
        num_values = inputs.shape[1 if own else 0] * self.num_activations
        if inputs.device.type == "cpu" and num_values >= LEAST_VALUES_OF_LOOP:
            return _run_each(run, state, inputs, own=own)
        return _run_together(run, state, inputs, own=own)

    def on_inputs(self, weights: Weights, inputs: Float[Tensor, "..."]) -> Logits:
        """Bind inputs; see Network.on_inputs."""
        return lambda gains: self.logits(weights, gains, inputs)

    def _num_states(self, gains: Gains, floats: Floats) -> int | None:
        """Give B, or None for one state without a leading dimension."""
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
            raise ValueError(f"gains and floats must have the same B, got {sorted(leading)}")
        return next(iter(leading.pop()), None)

    def _have_own(self, inputs: Tensor, num_states: int | None) -> bool:
        """Whether each state has its own inputs."""
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
    """Make a network of what a function of names.NETWORKS returns.

    Args:
        name: for people and tables.
        made: a network, which is returned as it is, or a torch.nn.Module.
        input_shape: the shape of one input.
        activation: what follows a hidden layer of a module.

    Raises:
        ValueError: neither a network nor a module, or a module that does not fit.
    """
    if isinstance(made, Network):
        return made
    if isinstance(made, nn.Module):
        return ModuleNetwork(name, made, input_shape, activation)
    raise ValueError(f"network {name} must be a Network or an nn.Module, got {type(made).__name__}")


Run = Callable[[Mapping[str, Tensor], Tensor], Tensor]


def _run_one(run: Run, state: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    ordered = {name: _channels_last(value) for name, value in state.items()}
    return run(ordered, _channels_last(inputs))


def _run_each(
    run: Run, state: Mapping[str, Tensor], inputs: Tensor, *, own: bool
) -> Float[Tensor, "B N S"]:
    """Run one state after another. Statistics are views, so they can be moved in place."""
    parts = {name: value.unbind() for name, value in state.items()}
    num_states = len(next(iter(parts.values())))
    each = inputs.unbind() if own else [_channels_last(inputs)] * num_states
    return torch.stack(
        [
            _run_one(run, {name: part[i] for name, part in parts.items()}, x)
            for i, x in enumerate(each)
        ]
    )


def _run_together(
    run: Run, state: Mapping[str, Tensor], inputs: Tensor, *, own: bool
) -> Float[Tensor, "B N S"]:
    """Run all states at once."""
    # The CPU's fused attention has no rule for vmap, which would warn and run it state by state.
    on_cpu = inputs.device.type == "cpu"
    with sdpa_kernel(SDPBackend.MATH) if on_cpu else nullcontext():
        found: Tensor = vmap(run, in_dims=(0, 0 if own else None))(state, inputs)
    return found


def _channels_last(values: Tensor) -> Tensor:
    """Lay out images, or filters, for the fast convolutions of the CPU: twice as fast.

    `contiguous` would leave tensors of one channel as they are, and the layer behind them slow.
    """
    return values.to(memory_format=torch.channels_last) if values.ndim == 4 else values
