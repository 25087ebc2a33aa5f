"""Show how the time and memory of task inference grow with the number of masks.

benchmarks/inference.py --growth measures this, stores the measured rows, and draws them. The next
command draws stored rows again:

    python benchmarks/growth.py growth.jsonl growth.svg
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TextIO

import numpy as np
from commandline import Parser, figure_file, file, run_program
from matplotlib.figure import Figure

from harness.errors import UserError

# Fits leave out small numbers of masks, because a constant cost of milliseconds hides the growth. A
# fit uses numbers of masks from 1000 on, or from 100 on if fewer than _FEWEST points are left.
_FITTED_FROM = (1000, 100)
_FEWEST = 3
_ORDER = (
    *("read", "one_shot", "one_shot_ranked", "batched", "binary", "dense", "dense_product"),
    *("read_store", "streamed", "streamed_batched"),
)


@dataclass(frozen=True)
class Row:
    """The measurements of one form at one number of masks; None if a value was not measured."""

    algorithm: str
    num_tasks: int
    seconds_per_inference: float
    bits_read_fraction: float
    agreement: float | None
    ratio_dense: float | None
    ratio_read: float
    packed_bytes: int
    extra_bytes: int
    task_accuracy: float | None
    num_inferences: int
    num_timed: int
    num_trained: int
    objective: str
    threads: int


def _lines(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Group rows by form: pairs of a form's name and its rows, sorted by the number of masks."""
    ordered = sorted(rows, key=lambda row: (_ORDER.index(row.algorithm), row.num_tasks))
    return [(name, list(line)) for name, line in groupby(ordered, lambda row: row.algorithm)]


def fitted_rows(line: Sequence[Row]) -> list[Row]:
    """Select the rows of a form to which the exponent is fitted."""
    above = [[row for row in line if row.num_tasks >= least] for least in _FITTED_FROM]
    return next((rows for rows in above if len(rows) >= _FEWEST), above[-1])


def exponent(line: Sequence[Row]) -> float | None:
    """Fit b in time = a * masks^b for the rows of a form; None if there are too few points."""
    points = fitted_rows(line)
    if len(points) < _FEWEST:
        return None
    logs = np.log([[row.num_tasks, row.seconds_per_inference] for row in points])
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


def print_exponents(rows: Sequence[Row], file: TextIO = sys.stdout) -> None:
    """Print how the time of each form grows with the number of masks."""
    for name, line in _lines(rows):
        if (fitted := exponent(line)) is not None:
            numbers = [row.num_tasks for row in fitted_rows(line)]
            print(f"{name}: time grows as k^{fitted:.2f} over k = {numbers}", file=file)


def draw(rows: Sequence[Row]) -> Figure:
    """Draw time, bits read, memory and task accuracy against the number of masks."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    (time, bits), (memory, accuracy) = figure.subplots(2, 2, sharex=True)
    for color, (name, line) in enumerate(_lines(rows)):
        wall = name in ("read", "read_store")
        style = {"color": f"C{color}", "marker": "o", "ms": 4, "ls": "--" if wall else "-"}
        fitted = exponent(line)
        label = name if fitted is None else f"{name}, k^{fitted:.2f}"
        numbers = [row.num_tasks for row in line]
        time.plot(numbers, [1e3 * row.seconds_per_inference for row in line], label=label, **style)
        if name == "batched":
            continue  # batched differs from one_shot in time only
        bits.plot(numbers, [100 * row.bits_read_fraction for row in line], **style)
        if not wall:
            memory.plot(numbers, [max(row.extra_bytes, 1) / 1e6 for row in line], **style)
            right = [(row.num_tasks, row.task_accuracy) for row in line if row.num_inferences >= 32]
            if right:
                accuracy.plot(*zip(*right, strict=True), **style)
    packed = sorted({row.num_tasks: row.packed_bytes for row in rows}.items())
    memory.plot([k for k, _ in packed], [size / 1e6 for _, size in packed], "k--", label="packed")
    memory.legend(fontsize="small")
    time.set(ylabel="ms per inference", yscale="log", title="time; dashed: read all bits once")
    bits.set(ylabel="% of the masks' bits", yscale="log", title="bits read")
    memory.set(ylabel="MB", yscale="log", title="memory beyond the packed masks")
    accuracy.set(ylabel="task accuracy", ylim=(0.8, 1.005), title="task accuracy from one image")
    trained = max(row.num_trained for row in rows)
    for axes in (time, bits, memory, accuracy):
        axes.set(xscale="log")
        axes.grid(alpha=0.3)
    for axes in (memory, accuracy):
        axes.set_xlabel(f"masks ({trained} trained; the others are distractors)")
    figure.legend(*time.get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    return figure


def read_rows(path: Path) -> list[Row]:
    """Read rows that benchmarks/inference.py --growth has stored.

    Raises:
        UserError: the file contains no rows, or other lines than such rows.
    """
    try:
        rows = [Row(**json.loads(line)) for line in path.read_text().splitlines()]
    except (ValueError, TypeError):
        rows = []
    if not rows or any(row.algorithm not in _ORDER for row in rows):
        raise UserError(
            f"{path} must hold rows of benchmarks/inference.py --growth, got none or other lines: "
            "run benchmarks/inference.py --growth FIGURE, which writes such a file"
        )
    return rows


def main() -> None:
    """Draw rows that benchmarks/inference.py --growth has stored."""
    parser = Parser(__doc__)
    parser.add_argument("rows", type=file, help="file written by benchmarks/inference.py --growth")
    parser.add_argument("figure", type=figure_file, help="file to draw, ending in .png or .svg")
    options = parser.parse_args()
    rows = read_rows(options.rows)
    draw(rows).savefig(options.figure, dpi=120)
    print_exponents(rows)


if __name__ == "__main__":
    run_program(main)
