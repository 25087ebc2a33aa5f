"""Measure how many random patterns each rule keeps, and compare with the literature.

    python benchmarks/capacities.py --dim 1000

Patterns are stored one by one, and recall starts at the stored patterns. A rule's capacity is the
load, in patterns per unit, up to which nine in ten patterns are kept. A pattern is kept if recall
changes no bit. For hebb, a pattern is also kept if its overlap with the recalled state is at least
0.9, because the capacity in the literature allows a few wrong bits. The capacities in the
literature are limits for large numbers of units.
"""

import statistics

import torch
from commandline import Parser, need_memory, run_program, whole
from reservoirs import MOST_STEPS, fill

from supsup_core.reservoirs import Hebb, Projection, Quadratic, Storkey
from supsup_core.reservoirs.recall import recall
from supsup_core.reservoirs.theory import capacity

# Each name in theory.py has the rule, and the smallest overlap with which a pattern counts as kept.
RULES: dict[str, tuple[type[Quadratic], float]] = {
    "hebb": (Hebb, 0.9),
    "hebb_exact": (Hebb, 1.0),
    "storkey": (Storkey, 1.0),
    "projection": (Projection, 1.0),
}
# The tested loads, as multiples of the literature's capacity.
SHARES = (0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.3)
LEAST_KEPT = 0.9
FEWEST_UNITS = 64  # every rule then has at least a few patterns at its smallest load


def load_kept(name: str, dim: int, seed: int) -> float:
    """Find the load, in patterns per unit, at which less than LEAST_KEPT of the patterns are kept.

    The load is interpolated between two tested loads. If enough patterns are kept at every tested
    load, the largest tested load is returned.
    """
    rule, least_overlap = RULES[name]
    generator = torch.Generator().manual_seed(seed)
    reservoir, stored = rule(dim), 0
    loads = [share * capacity(name, dim) / dim for share in SHARES]
    patterns = 2.0 * (torch.rand(round(loads[-1] * dim), dim, generator=generator) < 0.5) - 1
    before = (0.0, 1.0)
    for load in loads:
        count = round(load * dim)
        fill(reservoir, patterns, stored, count)
        stored = count
        found = recall(reservoir, patterns[:count], MOST_STEPS, generator)
        overlaps = (found.states * patterns[:count]).mean(dim=1)
        kept = float((overlaps >= least_overlap).double().mean())
        if kept < LEAST_KEPT:
            share = (before[1] - LEAST_KEPT) / (before[1] - kept)
            return before[0] + share * (load - before[0])
        before = load, kept
    return loads[-1]


def main() -> None:
    """Read the options, measure and print."""
    parser = Parser(__doc__)
    parser.add_argument("--dim", type=whole(FEWEST_UNITS), default=1000, help="D, number of units")
    parser.add_argument("--seeds", type=whole(), default=3, help="draws of the patterns")
    options = parser.parse_args()
    torch.set_num_threads(1)
    need_memory(16 * options.dim**2, "--dim")  # the weights, the patterns, and a copy of each
    for name in RULES:
        found = [load_kept(name, options.dim, seed) for seed in range(options.seeds)]
        expected = capacity(name, options.dim) / options.dim
        print(
            f"{name:10} {statistics.mean(found):.4f} patterns per unit ({min(found):.4f} to "
            f"{max(found):.4f}, {options.seeds} draws of {options.dim} units), literature "
            f"{expected:.4f}, ratio {statistics.mean(found) / expected:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    run_program(main)
