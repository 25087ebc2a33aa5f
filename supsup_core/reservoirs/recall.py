"""Recall: from a cue to a state that the reservoir keeps; cues, and what was recalled.

Shape letters: D units, B cues, P patterns.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from supsup_core.reservoirs.protocol import Reservoir


@dataclass(frozen=True, eq=False)  # == of tensors has no single truth value
class Recalled:
    """Where cues have led.

    Attributes:
        states: -1 or +1, (B, D).
        steps: sweeps over all units that changed something.
        settled: whether one more sweep would change nothing.
    """

    states: Float32[Tensor, "B D"]
    steps: Int64[Tensor, " B"]
    settled: Bool[Tensor, " B"]


Sweep = Callable[[Reservoir, Float32[Tensor, "B D"], torch.Generator], Float32[Tensor, "B D"]]


def at_once(
    reservoir: Reservoir, states: Float32[Tensor, "B D"], generator: torch.Generator
) -> Float32[Tensor, "B D"]:
    """Let all units follow the field at the same time: synchronous."""
    return _follow(reservoir.field(states), states)


def one_by_one(
    reservoir: Reservoir, states: Float32[Tensor, "B D"], generator: torch.Generator
) -> Float32[Tensor, "B D"]:
    """Let every unit see those before it, in an order that is drawn: asynchronous."""
    states = states.clone()
    for unit in torch.randperm(reservoir.dim, generator=generator).split(1):
        states[:, unit] = _follow(reservoir.field(states, unit), states[:, unit])
    return states


SWEEPS: dict[str, Sweep] = {"synchronous": at_once, "asynchronous": one_by_one}


def recall(
    reservoir: Reservoir,
    cues: Float32[Tensor, "B D"],
    most_steps: int,
    generator: torch.Generator,
    sweep: Sweep = at_once,
) -> Recalled:
    """Follow the field until nothing changes.

    Args:
        reservoir: what is stored.
        cues: -1 or +1; 0 for a bit that is not known. A unit without a field stays as it is,
            and an unknown one becomes +1.
        most_steps: sweeps over all units, >= 1.
        generator: of the order of units.
        sweep: one of SWEEPS.
    """
    states, steps = cues.clone(), torch.zeros(len(cues), dtype=torch.int64)
    moving = torch.ones(len(cues), dtype=torch.bool)
    for _ in range(most_steps):
        where = moving.nonzero().flatten()
        after = sweep(reservoir, states[where], generator)
        changed = (after != states[where]).any(dim=1)
        states[where] = after
        steps[where[changed]] += 1
        moving[where[~changed]] = False
        if not moving.any():
            break
    return Recalled(states, steps, ~moving)


def flipped(
    patterns: Float32[Tensor, "B D"], share: float, generator: torch.Generator
) -> Float32[Tensor, "B D"]:
    """Cues: patterns with a share of their bits, drawn for each, turned around."""
    return torch.where(_some(patterns, share, generator), -patterns, patterns)


def erased(
    patterns: Float32[Tensor, "B D"], share: float, generator: torch.Generator
) -> Float32[Tensor, "B D"]:
    """Cues: patterns of which a share of the bits, drawn for each, is not known."""
    return patterns.masked_fill(_some(patterns, share, generator), 0)


@dataclass(frozen=True)
class Score:
    """What recall has come to, as fractions of the cues.

    Attributes:
        bit_accuracy: of bits as in the pattern that was wanted, a mean.
        exact: the very pattern.
        other: another of the stored patterns, or one turned around.
        spurious: settled on what was never stored.
        unsettled: still moving.
    """

    bit_accuracy: float
    exact: float
    other: float
    spurious: float
    unsettled: float


def score(
    recalled: Recalled, wanted: Int64[Tensor, " B"], patterns: Float32[Tensor, "P D"]
) -> Score:
    """Compare what was recalled with what is stored.

    Args:
        recalled: from the cues.
        wanted: of which pattern each cue was made.
        patterns: all that are stored.
    """
    dim = patterns.shape[1]
    overlaps = recalled.states @ patterns.t() / dim
    own = overlaps.gather(1, wanted[:, None])[:, 0]
    exact = own == 1
    known = (overlaps.abs() == 1).any(dim=1)

    def share(which: Tensor) -> float:
        return float(which.double().mean())

    return Score(
        bit_accuracy=share((1 + own) / 2),
        exact=share(exact),
        other=share(known & ~exact),
        spurious=share(recalled.settled & ~known),
        unsettled=share(~recalled.settled & ~known),
    )


def _some(patterns: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """For each pattern as many of its places as the share says."""
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")
    chances = torch.rand(patterns.shape, generator=generator)
    chosen = chances.topk(round(share * patterns.shape[1]), dim=1).indices
    return torch.zeros(patterns.shape, dtype=torch.bool).scatter_(1, chosen, 1)


def _follow(field: Tensor, states: Tensor) -> Tensor:
    kept = torch.where(states == 0, torch.ones_like(states), states)
    return torch.where(field == 0, kept, field.sign())
