"""Run a module for one state, for several states one after another, or for several at once.

Shape letters: B states, N inputs, S outputs.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

# A function from the tensors of a state, by name, and inputs to the outputs of the module.
Run = Callable[[Mapping[str, Tensor], Tensor], Tensor]


def run_one(run: Run, state: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Compute the logits (N, S) of one state."""
    ordered = {name: channels_last(value) for name, value in state.items()}
    return run(ordered, channels_last(inputs))


def run_each(
    run: Run, state: Mapping[str, Tensor], inputs: Tensor, *, own: bool
) -> Float[Tensor, "B N S"]:
    """Compute the logits of B states, one state after another.

    The module gets views of the tensors in `state`, so that it can update running statistics in
    place.
    """
    parts = {name: value.unbind() for name, value in state.items()}
    num_states = len(next(iter(parts.values())))
    each = inputs.unbind() if own else [channels_last(inputs)] * num_states
    return torch.stack(
        [
            run_one(run, {name: part[i] for name, part in parts.items()}, x)
            for i, x in enumerate(each)
        ]
    )


def run_together(
    run: Run, state: Mapping[str, Tensor], inputs: Tensor, *, own: bool
) -> Float[Tensor, "B N S"]:
    """Compute the logits of B states at once, by vmap."""
    # vmap does not support the CPU's fused attention: it would warn, and run the states one by one.
    on_cpu = inputs.device.type == "cpu"
    with sdpa_kernel(SDPBackend.MATH) if on_cpu else nullcontext():
        found: Tensor = vmap(run, in_dims=(0, 0 if own else None))(state, inputs)
    return found


def channels_last(values: Tensor) -> Tensor:
    """Copy images or filters (4 axes) to the memory layout "channels last".

    Tensors with another number of axes stay as they are. Convolutions on the CPU are twice as fast
    in this layout. (The method `contiguous` would not change tensors of one channel, and the next
    layer would be slow.)
    """
    return values.to(memory_format=torch.channels_last) if values.ndim == 4 else values
