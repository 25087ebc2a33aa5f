"""Seek the mask of a task in a reservoir, from images without labels alone.

Where outputs are nearly even, the mutual information of image and label, which the task's own
mask makes large, is to second order

    mean over images |l - mean of l|^2 / (2 S),   l: logits without their mean over outputs.

Near gains of 0 logits are linear in the gains, and this is a quadratic form of the state. What a
reservoir holds is a span, more or less: a large value within it is sought by turns, up the
information, then back into the span by the reservoir's field, and a state of -1 and +1 is then
recalled. A direction and its opposite are as good in a quadratic form, and the entropy of the
outputs tells them apart.

Any mask shows what tells images apart most, such as how much ink they have, and among thousands
of masks that drowns what one of them shows of the labels. So logits are first evened out: as
random states would give them, they have unit covariance over the images.

The turns that come last push every unit towards -1 or +1, harder and harder, which a mixture of
stored states does not survive.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from supsup_core.inference.objectives import entropy
from supsup_core.reservoirs.recall import Recalled, recall
from supsup_core.reservoirs.variants import Centred

# Turns between images and reservoir.
TURNS = 40
_WITHOUT_PUSH = 10
_PUSH = (0.5, 4.0)  # of tanh, at the first turn that has it and towards the last

_NEAR_ZERO = 0.01  # gains there are so many times the state
_RANDOM_STATES = 64
_RIDGE = 1.0  # of the mean eigenvalue of what random states show, added to all of them

# States (B, D), between -1 and +1 more or less -> logits (B, N, S) of each one's images.
StateLogits = Callable[[Float32[Tensor, "B D"]], Float32[Tensor, "B N S"]]


def information(logits: Float[Tensor, "*B N S"]) -> Float[Tensor, "*B"]:
    """Of images and labels, to second order, in nats."""
    return _even(logits).square().mean(dim=(-2, -1)) / 2


def seek(
    reservoir: Centred,
    logits: StateLogits,
    num_tasks: int,
    most_steps: int,
    turns: int = TURNS,
) -> Recalled:
    """Find a stored state for each task.

    Args:
        reservoir: what is stored, and its mean, from which it starts.
        logits: of the images of each task.
        num_tasks: B.
        most_steps: sweeps of the recall that ends it.
        turns: between images and reservoir, >= 1.
    """
    states = reservoir.mean.expand(num_tasks, -1)
    evener = _evener(logits, states)
    for turn in range(turns):
        leaf = states.clone().requires_grad_()
        shown = evener @ _even(_near_zero(logits, leaf))
        (uphill,) = torch.autograd.grad(information(shown).sum(), leaf)
        states = _as_long_as_corners(reservoir.inner.field(_as_long_as_corners(uphill)))
        if turn >= _WITHOUT_PUSH:
            share = (turn - _WITHOUT_PUSH) / (turns - _WITHOUT_PUSH)
            push = _PUSH[0] + (_PUSH[1] - _PUSH[0]) * share
            states = _as_long_as_corners(torch.tanh(push * states))
    generator = torch.Generator()  # at once: no order is drawn
    ends = [
        recall(reservoir, torch.where(sign * states >= 0, 1.0, -1.0), most_steps, generator)
        for sign in (1, -1)
    ]
    with torch.no_grad():
        entropies = [
            entropy(scores, scores.shape[-1]).mean(dim=-1)
            for scores in (logits(end.states) for end in ends)
        ]
    return _either(entropies[0] <= entropies[1], *ends)


def _near_zero(logits: StateLogits, states: Float32[Tensor, "B D"]) -> Float32[Tensor, "B N S"]:
    """Logits with gains that are a small multiple of the states; a state of -1 is a gain of 0."""
    return logits(2 * _NEAR_ZERO * states - 1)


def _even(logits: Float[Tensor, "*B N S"]) -> Float[Tensor, "*B N S"]:
    """Without their means over outputs and over images."""
    even = logits - logits.mean(dim=-1, keepdim=True)
    return even - even.mean(dim=-2, keepdim=True)


def _evener(logits: StateLogits, like: Float32[Tensor, "B D"]) -> Float32[Tensor, "B N N"]:
    """What makes the logits of random states about uncorrelated over the images."""
    generator = torch.Generator().manual_seed(0)
    signs = [
        torch.randint(2, like.shape, generator=generator).to(like) * 2 - 1
        for _ in range(_RANDOM_STATES)
    ]
    with torch.no_grad():
        shown = torch.cat([_even(_near_zero(logits, states)) for states in signs], dim=-1)
    values, vectors = torch.linalg.eigh(shown @ shown.transpose(-1, -2))
    scale = values.mean(dim=-1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
    roots = (values.clamp_min(0) / scale + _RIDGE).rsqrt()
    evener: Tensor = (vectors * roots[:, None, :]) @ vectors.transpose(-1, -2)
    return evener


def _as_long_as_corners(states: Float32[Tensor, "B D"]) -> Float32[Tensor, "B D"]:
    """Scaled to the norm of states of -1 and +1."""
    norms = states.norm(dim=1, keepdim=True).clamp_min(torch.finfo(states.dtype).tiny)
    scaled: Tensor = states * (states.shape[1] ** 0.5 / norms)
    return scaled


def _either(first: Tensor, one: Recalled, other: Recalled) -> Recalled:
    return Recalled(
        torch.where(first[:, None], one.states, other.states),
        torch.where(first, one.steps, other.steps),
        torch.where(first, one.settled, other.settled),
    )
