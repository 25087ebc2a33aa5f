"""Run a benchmark alternately in two checkouts, and print how much faster the second checkout is.

    git worktree add /tmp/before COMMIT
    python benchmarks/between.py --before /tmp/before --rounds 5 \
        benchmarks/train.py --data mnist --rounds 1 --steps 50
    python benchmarks/between.py --before /tmp/before --rounds 5 --figure seconds_per_inference \
        benchmarks/inference.py --run RUN_BEFORE:RUN_AFTER --tasks 2500

The second checkout is the one that contains this program. The benchmark must have an option --json
that prints one JSON object per line; this program adds the option. The key `form` or `algorithm`
of an object names the form that was measured. Each round measures both checkouts one after the
other, and gives one ratio per form. A ratio above 1 means that the second checkout is faster. If an
argument is BEFORE:AFTER, the first checkout gets BEFORE and the second checkout gets AFTER. Use
this for run directories, because each checkout must read a run directory that it has written.
"""

import json
import os
import statistics
import subprocess
import sys
from argparse import REMAINDER
from collections import defaultdict
from pathlib import Path

from commandline import Parser, folder, run_program, whole

from harness.errors import UserError

HERE = Path(__file__).resolve().parent.parent
RATES = ("tasks_per_hour",)  # higher is faster; for all other figures, lower is faster


def figures(checkout: Path, arguments: list[str], figure: str) -> dict[str, float]:
    """Run the benchmark of a checkout once.

    Args:
        checkout: folder of the checkout.
        arguments: the benchmark's program and its arguments.
        figure: key of the figure to read from the printed objects.

    Returns:
        A mapping from form to figure.

    Raises:
        UserError: the benchmark does not print this figure for every form.
        CalledProcessError: the benchmark failed.
    """
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    command = [sys.executable, *arguments, "--json"]
    done = subprocess.run(
        command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    known = [key for key in next(iter(rows), {}) if all(is_figure(row.get(key)) for row in rows)]
    if figure not in known:
        raise UserError(
            f"--figure must be one of the positive figures that {arguments[0]} prints for every "
            f"form, got {figure}: try one of {', '.join(known) or 'another benchmark'}"
        )
    return {row.get("form") or row["algorithm"]: row[figure] for row in rows}


def is_figure(value: object) -> bool:
    """Return whether a value is a positive number, so that ratios of such values exist."""
    return isinstance(value, int | float) and value > 0


def part(argument: str, place: int) -> str:
    """Return BEFORE (place 0) or AFTER (place 1) of BEFORE:AFTER; return other arguments as is."""
    before, colon, after = argument.partition(":")
    return (before, after)[place] if colon else argument


def main() -> None:
    """Read the options, measure and print."""
    parser = Parser(__doc__)
    parser.add_argument("--before", type=folder, required=True, help="checkout to compare with")
    parser.add_argument("--rounds", type=whole(), default=5)
    parser.add_argument("--figure", default="tasks_per_hour", help="key of the figure to compare")
    parser.add_argument("benchmark", nargs=REMAINDER, help="program and its arguments")
    options = parser.parse_args()
    if not options.benchmark:
        parser.error(
            "benchmark must be a program and its arguments, got none: try "
            "benchmarks/train.py --rounds 1"
        )
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    checkouts = (options.before.resolve(), HERE)
    for turn in range(options.rounds):
        # The order alternates, so that a drift of the machine's speed favours neither checkout.
        order = (0, 1) if turn % 2 == 0 else (1, 0)
        measured: dict[int, dict[str, float]] = {}
        for place in order:
            arguments = [part(argument, place) for argument in options.benchmark]
            measured[place] = figures(checkouts[place], arguments, options.figure)
        common = measured[0].keys() & measured[1].keys()
        if not common:
            raise UserError(
                f"both checkouts must print a form in common, got {', '.join(measured[0])} and "
                f"{', '.join(measured[1])}: try another --before"
            )
        for form in common:
            found[form].append((measured[0][form], measured[1][form]))
        print(f"round {turn + 1} of {options.rounds} is done", file=sys.stderr, flush=True)
    print(f"{'form':16} {'before':>12} {'after':>12}   ratio (range)   {options.figure}")
    for form, pairs in sorted(found.items()):
        more_is_faster = options.figure in RATES
        ratios = [b / a if more_is_faster else a / b for a, b in pairs]
        before, after = (statistics.median(values) for values in zip(*pairs, strict=True))
        print(
            f"{form:16} {before:12.5g} {after:12.5g}   {statistics.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f})"
        )


if __name__ == "__main__":
    run_program(main)
