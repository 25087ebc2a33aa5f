"""Seek the mask of a task in a reservoir, from images of the task without labels.

The task's own mask gives a large mutual information between image and label. Let l be the logits of
an image minus their mean over the S outputs. If the outputs are nearly equal, the mutual
information is, to second order,

    mean over images of |l - (mean of l over images)|^2 / (2 S).

If all gains are near 0, the logits are linear in the gains. The formula is then a quadratic form of
the state. The stored states span a linear space, and the search looks for a state in this space
that has a large mutual information. The search is a loop. Each iteration has two steps. The first
step replaces the state by the gradient of the mutual information. The second step brings the result
back into the span of the stored states: it applies the reservoir's field. After the loop, recall
gives a state of -1 and +1. A quadratic form has the same value for a state and for the negative of
the state. So both are recalled, and the state whose outputs have the lower entropy is returned.

Some differences between images change the logits of every mask, for example the amount of ink.
Among thousands of masks, these differences hide the effect of the labels. So the logits are
multiplied by a matrix that scales these differences down. After the multiplication, the covariance
of the logits of random states over the images is nearly the identity matrix. Without this
multiplication, masks are found among 1000 stored masks, but seldom among 2500
(analysis/records/2026-11-25-reservoirs.md).

The last iterations also move every unit towards -1 or +1, each time more strongly, because the
result should be one stored state and not a mixture of several.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from supsup_core.inference.objectives import entropy
from supsup_core.reservoirs.recall import Recalled, recall
from supsup_core.reservoirs.variants import Centred

TURNS = 40  # number of iterations
_WITHOUT_PUSH = 10  # number of iterations before the units are moved towards -1 and +1
# After these iterations, tanh(factor * state) moves the units. The factor grows from the first
# value to nearly the second value.
_PUSH = (0.5, 4.0)

_NEAR_ZERO = 0.01  # in the search, the gains are the state times this number
_RANDOM_STATES = 64
# The eigenvalues of the covariance are scaled to a mean of 1. Then this number is added to each.
_RIDGE = 1.0

# A function from states (B, D), about -1 to +1, to logits (B, N, S): each state has N images of its
# own, and the network has S outputs.
StateLogits = Callable[[Float32[Tensor, "B D"]], Float32[Tensor, "B N S"]]


def information(logits: Float[Tensor, "*B N S"]) -> Float[Tensor, "*B"]:
    """Compute the mutual information between images and predicted labels, in nats.

    The formula is a second-order approximation, for outputs that are nearly equal.

    Args:
        logits: (B, N, S) logits of N images and S outputs, for each of B states.

    Returns:
        (B,) the mutual information for each state.
    """
    return _even(logits).square().mean(dim=(-2, -1)) / 2


def seek(
    reservoir: Centred,
    logits: StateLogits,
    num_tasks: int,
    most_steps: int,
    turns: int = TURNS,
) -> Recalled:
    """Find a stored state for each of B tasks, from unlabelled images of the tasks.

    Args:
        reservoir: the reservoir that holds the states. The search starts from the mean of the
            stored states.
        logits: a function that computes logits (B, N, S). It takes one state per task, (B, D), and
            uses the N images of this task.
        num_tasks: B, the number of tasks.
        most_steps: the largest number of sweeps in the final recall.
        turns: number of iterations of the search, >= 1.
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
    generator = torch.Generator()  # not used, because a synchronous sweep has no order of units
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
    """Compute the logits with gains of _NEAR_ZERO times `states`.

    The function `logits` takes states, not gains, and a state of -1 means a gain of 0. So the gains
    are first converted to states.
    """
    return logits(2 * _NEAR_ZERO * states - 1)


def _even(logits: Float[Tensor, "*B N S"]) -> Float[Tensor, "*B N S"]:
    """Subtract the mean over the outputs from the logits, and then the mean over the images."""
    even = logits - logits.mean(dim=-1, keepdim=True)
    return even - even.mean(dim=-2, keepdim=True)


def _evener(logits: StateLogits, like: Float32[Tensor, "B D"]) -> Float32[Tensor, "B N N"]:
    """Compute a matrix (N, N) per task that multiplies the logits (N, S) of the task's N images.

    If the logits of random states are multiplied by this matrix, their covariance over the images
    is nearly the identity matrix.
    """
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
    """Scale each state to the norm sqrt(D), which is the norm of a state of -1 and +1."""
    norms = states.norm(dim=1, keepdim=True).clamp_min(torch.finfo(states.dtype).tiny)
    scaled: Tensor = states * (states.shape[1] ** 0.5 / norms)
    return scaled


def _either(first: Tensor, one: Recalled, other: Recalled) -> Recalled:
    return Recalled(
        torch.where(first[:, None], one.states, other.states),
        torch.where(first, one.steps, other.steps),
        torch.where(first, one.settled, other.settled),
    )
