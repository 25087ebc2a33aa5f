"""Recall: make cues, compute the states that a reservoir reaches from them, and score the states.

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
    """The states that recall reached from B cues.

    Attributes:
        states: (B, D) the value of each unit, -1 or +1.
        steps: (B,) for each cue, the number of sweeps that changed the state. (One sweep updates
            all units.)
        settled: (B,) True if one more sweep would not change the state.
    """

    states: Float32[Tensor, "B D"]
    steps: Int64[Tensor, " B"]
    settled: Bool[Tensor, " B"]

    @classmethod
    def joined(cls, parts: Sequence["Recalled"]) -> "Recalled":
        """Join the results of several groups of cues, in the order of the groups."""
        return cls(
            torch.cat([part.states for part in parts]),
            torch.cat([part.steps for part in parts]),
            torch.cat([part.settled for part in parts]),
        )


Sweep = Callable[[Reservoir, Float32[Tensor, "B D"], torch.Generator], Float32[Tensor, "B D"]]


def at_once(
    reservoir: Reservoir, states: Float32[Tensor, "B D"], generator: torch.Generator
) -> Float32[Tensor, "B D"]:
    """Set all units to the signs of their fields at the same time (synchronous sweep).

    `generator` is not used.
    """
    return _follow(reservoir.field(states), states)


def one_by_one(
    reservoir: Reservoir, states: Float32[Tensor, "B D"], generator: torch.Generator
) -> Float32[Tensor, "B D"]:
    """Set the units to the signs of their fields one by one, in random order (asynchronous sweep).

    The field of a unit is computed after the units before it have changed. `generator` draws the
    order.
    """
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
    """Start from each cue, and repeat sweeps over all units until the state no longer changes.

    A sweep sets each unit to the sign of its field. A unit with a field of 0 keeps its value, or
    becomes +1 if its value is unknown.

    Args:
        reservoir: the reservoir that holds the patterns.
        cues: (B, D) the value of each unit: -1 or +1, or 0 if the value is unknown.
        most_steps: the largest number of sweeps, >= 1.
        generator: the generator that draws the order of the units in asynchronous sweeps.
        sweep: the kind of sweep, a function from SWEEPS.
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
    """Make one cue per pattern, by inverting some of its bits.

    Args:
        patterns: (B, D) patterns of -1 and +1.
        share: the fraction of bits to invert, in [0, 1].
        generator: the generator that chooses the bits.
    """
    return torch.where(_some(patterns, share, generator), -patterns, patterns)


def erased(
    patterns: Float32[Tensor, "B D"], share: float, generator: torch.Generator
) -> Float32[Tensor, "B D"]:
    """Make one cue per pattern, by setting some of its bits to 0 (unknown).

    Args:
        patterns: (B, D) patterns of -1 and +1.
        share: the fraction of bits to set to 0, in [0, 1].
        generator: the generator that chooses the bits.
    """
    return patterns.masked_fill(_some(patterns, share, generator), 0)


@dataclass(frozen=True)
class Score:
    """The outcome of recall. Every value is a fraction in [0, 1].

    Attributes:
        bit_accuracy: fraction of the bits that are equal to the bits of the wanted pattern, over
            all cues.
        exact: fraction of cues that led to the wanted pattern.
        other: fraction of cues that led to another stored pattern, or to a stored pattern with
            all bits inverted.
        spurious: fraction of cues that led to an unknown state that no longer changes. Unknown
            means: neither a stored pattern nor a stored pattern with all bits inverted.
        unsettled: fraction of cues that led to an unknown state that still changed in the last
            sweep.
    """

    bit_accuracy: float
    exact: float
    other: float
    spurious: float
    unsettled: float


def packed(states: Float32[Tensor, "B D"]) -> list[bytes]:
    """Pack each state of -1 and +1 into a bytes object, so that a set can contain the state."""
    rows = np.packbits((states > 0).cpu().numpy(), axis=1)
    return [row.tobytes() for row in rows]


def unpacked(stored: Sequence[bytes], first: int, end: int) -> Float32[Tensor, "B _"]:
    """Unpack some units of packed states, on the CPU.

    Args:
        stored: B states from `packed`.
        first: index of the first unit.
        end: index after the last unit.

    Returns:
        (B, end - first) states of -1 and +1.
    """
    rows = np.stack([np.frombuffer(row, np.uint8) for row in stored])
    bits = np.unpackbits(rows[:, first // 8 : -(-end // 8)], axis=1)[:, first % 8 :]
    return torch.from_numpy(bits[:, : end - first].astype(np.float32)).mul_(2).sub_(1)


def score(recalled: Recalled, wanted: Float32[Tensor, "B D"], stored: Collection[bytes]) -> Score:
    """Compare the recalled states with the wanted patterns and with all stored patterns.

    Args:
        recalled: the states that recall reached from B cues.
        wanted: (B, D) the pattern from which each cue was made.
        stored: all stored patterns, as bytes from `packed`.
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
    """Draw round(share * D) bits of each pattern, and return (B, D) with True for a drawn bit."""
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}: try share=0.1")
    chances = torch.rand(patterns.shape, generator=generator)
    chosen = chances.topk(round(share * patterns.shape[1]), dim=1).indices
    some = torch.zeros(patterns.shape, dtype=torch.bool).scatter_(1, chosen, 1)
    return some.to(patterns.device)


def _follow(field: Tensor, states: Tensor) -> Tensor:
    kept = torch.where(states == 0, torch.ones_like(states), states)
    return torch.where(field == 0, kept, field.sign())
