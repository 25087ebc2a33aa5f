"""Seek the mask of a task in a reservoir, from images without labels alone.

Where outputs are nearly even, the mutual information of image and label, which the task's own
mask makes large, is to second order

    mean over images |l - mean of l|^2 / (2 S),   l: logits without their mean over outputs.

With one hidden layer this is a quadratic form of the mask's bits, m^T A m with m = (s + 1) / 2.
What a reservoir holds is a span, more or less: a large value within it is sought by turns, up the
information, then back into the span by the reservoir's field, and a state of -1 and +1 is then
recalled. After the first turn s is what the field gives, without the mean: its pull is then from
half of every unit, which found no fewer tasks than from the mean. A direction and its opposite
are as good in a quadratic form, and the entropy of the outputs tells them apart.

The first of these turns is the one-shot gradient through the mean of the masks, which a
reservoir of constant size may keep: D more numbers. Later ones push every unit towards -1 or +1,
harder and harder, which a mixture of stored states does not survive.

Shape letters: D units of the reservoir, B tasks sought, N images of a batch, S outputs.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from supsup_core.objectives import entropy
from supsup_core.reservoirs.recall import Recalled, recall
from supsup_core.reservoirs.variants import Centred

# Turns between images and reservoir. On masks of permuted MNIST in 8192 units, 20 without a push
# found 20 of 20 tasks among 1000, and 2 among 2500, where these found 9.
TURNS = 80
_WITHOUT_PUSH = 10
_PUSH = (0.5, 4.0)  # of tanh, at the first turn that has it and towards the last

# States (B, D), between -1 and +1 more or less -> logits (B, N, S) of each one's images.
StateLogits = Callable[[Float32[Tensor, "B D"]], Float32[Tensor, "B N S"]]


def information(logits: Float[Tensor, "*B N S"]) -> Float[Tensor, "*B"]:
    """Of images and labels, to second order, in nats."""
    even = logits - logits.mean(dim=-1, keepdim=True)
    even = even - even.mean(dim=-2, keepdim=True)
    return even.square().mean(dim=(-2, -1)) / 2


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
    for turn in range(turns):
        leaf = states.clone().requires_grad_()
        (uphill,) = torch.autograd.grad(information(logits(leaf)).sum(), leaf)
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
