"""Measure how long a reservoir takes to store patterns and to recall them from noisy cues.

    python benchmarks/reservoir_speed.py --dim 4096 --patterns 2500 --cues 500

Random patterns are stored one by one, each pattern once. Then some patterns are recalled from cues
in which the share --flipped of the bits is inverted. Recall updates all units at once, and takes
--together cues at a time. For 8 and 4 bits, the weights are rounded after the last pattern is
stored. The products with rounded weights are still computed in floats.
"""

import json
import os
import time

import torch
from commandline import Parser, need_memory, real, run_program, whole
from intervals import wilson

from supsup_core.reservoirs import Hebb, Projection, Quadratic, Quantised, Storkey
from supsup_core.reservoirs.recall import Recalled, flipped, packed, recall, score

RULES: dict[str, type[Quadratic]] = {"hebb": Hebb, "storkey": Storkey, "projection": Projection}
MOST_STEPS = 50


def recall_all(
    reservoir: Quadratic, cues: torch.Tensor, together: int, generator: torch.Generator
) -> Recalled:
    """Recall patterns from all cues, `together` cues at a time."""
    parts = [recall(reservoir, some, MOST_STEPS, generator) for some in cues.split(together)]
    return Recalled.joined(parts)


def main() -> None:
    """Read the options, measure, and print one JSON object per line."""
    parser = Parser(__doc__)
    parser.add_argument("--dim", type=whole(), default=4096, help="D, number of units")
    parser.add_argument("--patterns", type=whole(), default=2500)
    parser.add_argument("--cues", type=whole(), default=500)
    parser.add_argument("--together", type=whole(), default=100)
    parser.add_argument(
        "--flipped",
        type=real(at_least=0, at_most=1),
        default=0.1,
        help="share of wrong bits in a cue",
    )
    parser.add_argument("--rules", choices=RULES, nargs="+", default=list(RULES))
    parser.add_argument("--threads", type=whole(at_most=1024), default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    # The patterns, the weights, and a rounded copy of the weights.
    need_memory(4 * options.dim * (options.patterns + 2 * options.dim), "--dim and --patterns")
    generator = torch.Generator().manual_seed(0)
    patterns = 2.0 * (torch.rand(options.patterns, options.dim, generator=generator) < 0.5) - 1
    wanted = torch.randperm(options.patterns, generator=generator)[: options.cues]
    cues = flipped(patterns[wanted], options.flipped, generator)
    stored = set(packed(patterns))
    for name in options.rules:
        reservoir = RULES[name](options.dim)
        began = time.perf_counter()
        for pattern in patterns:
            reservoir.store(pattern)
        store_seconds = time.perf_counter() - began
        for num_bits in (32, 8, 4):
            kept = reservoir if num_bits == 32 else Quantised(reservoir, num_bits)
            began = time.perf_counter()
            found = recall_all(kept, cues, options.together, generator)
            seconds = time.perf_counter() - began
            told = score(found, patterns[wanted], stored)
            low, high = wilson(round(told.exact * len(wanted)), len(wanted))
            row = {
                "rule": name,
                "num_bits": num_bits,
                "dim": options.dim,
                "num_patterns": options.patterns,
                "flipped": options.flipped,
                "store_seconds": store_seconds,
                "seconds_per_pattern": store_seconds / options.patterns,
                "recalled_per_second": len(wanted) / seconds,
                "exact": told.exact,
                "low": low,
                "high": high,
                "spurious": told.spurious,
                "unsettled": told.unsettled,
                "num_cues": len(wanted),
                "reservoir_bytes": kept.num_bytes,
                "packed_bytes": -(-options.dim // 8) * options.patterns,
                "threads": options.threads,
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    run_program(main)
