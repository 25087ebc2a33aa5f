"""Recall: from a cue to a state that the reservoir keeps; cues, and what was recalled.

Shape letters: D units, B cues.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
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

    @classmethod
    def joined(cls, parts: Sequence["Recalled"]) -> "Recalled":
        """Those of several groups of cues, in their order."""
        return cls(
            torch.cat([part.states for part in parts]),
            torch.cat([part.steps for part in parts]),
            torch.cat([part.settled for part in parts]),
        )


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
    states, steps = cues.clone(), cues.new_zeros(len(cues), dtype=torch.int64)
    moving = cues.new_ones(len(cues), dtype=torch.bool)
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


def packed(states: Float32[Tensor, "B D"]) -> list[bytes]:
    """Each state of -1 and +1 in few bytes, to find it among others."""
    rows = np.packbits((states > 0).cpu().numpy(), axis=1)
    return [row.tobytes() for row in rows]


def unpacked(stored: Sequence[bytes], first: int, end: int) -> Float32[Tensor, "B _"]:
    """Some units, from the first to before the end, of states that were packed; on the CPU."""
    rows = np.stack([np.frombuffer(row, np.uint8) for row in stored])
    bits = np.unpackbits(rows[:, first // 8 : -(-end // 8)], axis=1)[:, first % 8 :]
    return torch.from_numpy(bits[:, : end - first].astype(np.float32)).mul_(2).sub_(1)


def score(recalled: Recalled, wanted: Float32[Tensor, "B D"], stored: Collection[bytes]) -> Score:
    """Compare what was recalled with what is stored.

    Args:
        recalled: from the cues.
        wanted: the pattern that each cue was made of.
        stored: every pattern that is, packed.
    """
    right = recalled.states == wanted
    exact = right.all(dim=1)
    either_way = zip(packed(recalled.states), packed(-recalled.states), strict=True)
    known = torch.tensor(
        [state in stored or turned in stored for state, turned in either_way], device=exact.device
    )

    def share(which: Tensor) -> float:
        return float(which.double().mean())

    return Score(
        bit_accuracy=share(right),
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
    some = torch.zeros(patterns.shape, dtype=torch.bool).scatter_(1, chosen, 1)
    return some.to(patterns.device)


def _follow(field: Tensor, states: Tensor) -> Tensor:
    kept = torch.where(states == 0, torch.ones_like(states), states)
    return torch.where(field == 0, kept, field.sign())
