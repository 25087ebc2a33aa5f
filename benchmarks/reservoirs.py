"""Measure how many random patterns each reservoir recalls, and compare with theory and bytes.

    python benchmarks/reservoirs.py --dim 1024 --figure capacity.svg
    python benchmarks/reservoirs.py --dim 1024 --json               one JSON object per line

Patterns are stored one by one. At each load, some patterns are recalled from cues in which the
share --flipped of the bits is inverted. Recall updates all units at once. A point is the share of
cues whose pattern was recalled without a wrong bit, with a 95 % interval by Wilson. Vertical lines
are capacities from the literature (supsup_core/reservoirs/theory.py). These capacities count
patterns that are fixed points, and are limits for large numbers of units. From cues with wrong
bits, fewer patterns are recalled.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
from commandline import Parser, figure_file, need_memory, real, run_program, whole
from intervals import wilson
from matplotlib.figure import Figure

from supsup_core.reservoirs import (
    Hebb,
    Perceptron,
    Projection,
    Quadratic,
    Quantised,
    RandomFeatures,
    Reservoir,
    Storkey,
)
from supsup_core.reservoirs.recall import flipped, packed, recall, score
from supsup_core.reservoirs.rules import BETA_DIM
from supsup_core.reservoirs.theory import break_even, capacity

LOADS = (0.02, 0.05, 0.08, 0.1, 0.14, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FEWEST_UNITS = 32  # with fewer units, no pattern would be stored at the smallest load
MOST_CUES = 200
MOST_STEPS = 50
SWEEPS = 200  # sweeps over the stored patterns when perceptrons rehearse


@dataclass(frozen=True)
class Point:
    """Recall of one reservoir at one load; `low` and `high` are the ends of `exact`'s interval."""

    reservoir: str
    dim: int
    num_patterns: int
    flipped: float
    exact: float
    low: float
    high: float
    bit_accuracy: float
    spurious: float
    unsettled: float
    reservoir_bytes: int
    packed_bytes: int


def reservoirs(dim: int) -> dict[str, Callable[[], Reservoir]]:
    """Return the reservoirs to compare: name -> function that makes an empty reservoir."""

    def random_features() -> RandomFeatures:
        # The D^2 / 32 frequencies keep D^2 / 16 numbers, a sixteenth of the D^2 weights of the
        # other reservoirs. Omega has D numbers per frequency, but follows from a seed.
        generator = torch.Generator().manual_seed(1)
        return RandomFeatures(dim, dim * dim // 32, BETA_DIM / dim, generator)

    return {
        "hebb": lambda: Hebb(dim),
        "storkey": lambda: Storkey(dim),
        "projection": lambda: Projection(dim),
        "perceptron": lambda: Perceptron(dim),
        "random_features": random_features,
    }


def fill(reservoir: Reservoir, patterns: torch.Tensor, first: int, end: int) -> None:
    """Store the patterns `first` to `end` - 1; the patterns before `first` are stored already."""
    for pattern in patterns[first:end]:
        reservoir.store(pattern)
    # The theory of perceptrons assumes that they see stored patterns again. Every other rule
    # stores a pattern once.
    if isinstance(reservoir, Perceptron):
        reservoir.rehearse(patterns[:end], SWEEPS)


def variants(name: str, reservoir: Reservoir) -> Iterator[tuple[str, Reservoir]]:
    """Yield the reservoir; for `projection`, also yield copies with weights of 8 and 4 bits."""
    yield name, reservoir
    if name == "projection":
        assert isinstance(reservoir, Quadratic)
        for num_bits in (8, 4):
            yield f"{name}, {num_bits} bits", Quantised(reservoir, num_bits)


def measure(dim: int, share: float, seed: int) -> Iterator[Point]:
    """Measure all reservoirs at all loads; `share` is the fraction of a cue's bits to invert."""
    generator = torch.Generator().manual_seed(seed)
    patterns = 2.0 * (torch.rand(round(max(LOADS) * dim), dim, generator=generator) < 0.5) - 1
    for name, make in reservoirs(dim).items():
        reservoir, stored = make(), 0
        for load in LOADS:
            count = round(load * dim)
            fill(reservoir, patterns, stored, count)
            stored = count
            wanted = torch.randperm(count, generator=generator)[:MOST_CUES]
            cues = flipped(patterns[wanted], share, generator)
            stored_bits = set(packed(patterns[:count]))
            for label, variant in variants(name, reservoir):
                found = recall(variant, cues, MOST_STEPS, generator)
                told = score(found, patterns[wanted], stored_bits)
                low, high = wilson(round(told.exact * len(wanted)), len(wanted))
                yield Point(
                    label,
                    dim,
                    count,
                    share,
                    told.exact,
                    low,
                    high,
                    told.bit_accuracy,
                    told.spurious,
                    told.unsettled,
                    variant.num_bytes,
                    -(-dim // 8) * count,
                )


def draw(points: Sequence[Point]) -> Figure:
    """Draw exact recall against the load, with the capacities of theory."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    dim = points[0].dim
    for color, label in enumerate(dict.fromkeys(point.reservoir for point in points)):
        line = [point for point in points if point.reservoir == label]
        loads = [point.num_patterns / dim for point in line]
        axes.plot(loads, [p.exact for p in line], f"C{color}o-", ms=4, label=_described(line[0]))
        axes.fill_between(
            loads, [p.low for p in line], [p.high for p in line], color=f"C{color}", alpha=0.15
        )
    for color, rule in enumerate(("hebb_exact", "storkey", "projection")):
        limit = capacity(rule, dim) / dim
        axes.axvline(limit, color=f"C{color}", ls=":", lw=1)
        axes.text(limit, 1.03, f"{rule} {limit:.2f}", fontsize="small", ha="center")
    axes.set(
        xlabel="stored patterns per unit",
        ylabel="share of cues recalled to the bit",
        ylim=(-0.02, 1.1),
        title=f"{dim} units, {points[0].flipped:.0%} of a cue's bits wrong",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def _described(point: Point) -> str:
    masks = break_even(point.dim, point.reservoir_bytes)
    return f"{point.reservoir}: as large as {masks:,.0f} packed masks"


def main() -> None:
    """Read the options, measure, then print and draw."""
    parser = Parser(__doc__)
    parser.add_argument("--dim", type=whole(FEWEST_UNITS), default=1024, help="D, number of units")
    parser.add_argument(
        "--flipped",
        type=real(at_least=0, at_most=1),
        default=0.1,
        help="share of wrong bits in a cue",
    )
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--figure", type=figure_file, help="figure to draw, .svg or .png")
    parser.add_argument("--json", action="store_true", help="print one object per line")
    options = parser.parse_args()
    torch.set_num_threads(1)
    need_memory(12 * options.dim**2, "--dim")  # the patterns, the weights, and a rounded copy
    points = []
    for point in measure(options.dim, options.flipped, options.seed):
        points.append(point)
        if options.json:
            print(json.dumps(asdict(point)), flush=True)
        else:
            print(
                f"{point.reservoir:20} {point.num_patterns:6} patterns: exact {point.exact:.3f} "
                f"[{point.low:.3f}, {point.high:.3f}], bits {point.bit_accuracy:.4f}, "
                f"spurious {point.spurious:.3f}, unsettled {point.unsettled:.3f}, "
                f"reservoir {point.reservoir_bytes:,} bytes, packed {point.packed_bytes:,} bytes",
                flush=True,
            )
    if options.figure:
        draw(points).savefig(options.figure, dpi=120)


if __name__ == "__main__":
    run_program(main)
