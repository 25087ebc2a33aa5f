"""Time task inference, and compare it with reading the masks once and with dense float masks.

    python benchmarks/inference.py --run runs/mnist-permuted-2500-fast --tasks 2500
    python benchmarks/inference.py --tasks 2500 --json             one JSON object per line
    python benchmarks/inference.py --run … --agreement 10000       compare ranked with exact
    python benchmarks/inference.py --run … --growth growth.svg     from 10 masks to 1,000,000

Every query is one test image of a trained task, as in the paper's inference from one image. Without
--run, a few masks are trained. If --tasks is larger than the number of trained masks, the others
are distractors, drawn from the densities of the trained masks. All forms take turns in one process,
for --rounds rounds, and the time of a form is a median.

read             read all packed bits once, with --threads threads: the lower bound of a full scan
one_shot         exact one-shot on packed bits
one_shot_ranked  one-shot that reads the strongest evidence first
binary           halve the candidates with each of ceil(log2 k) gradients
batched          exact one-shot for 128 queries in one call; seconds per query
dense            float masks with autograd, as in the authors' code: index the stored masks,
                 multiply them by their coefficients, and sum. This form needs 12 bytes per weight
                 and mask, so it is measured only for k <= --dense-tasks
dense_product    the same with one matrix product per layer, without the copies of dense

ratio_dense is the time of dense divided by the time of the form. ratio_read is the time of read
divided by the time of the form. extra_bytes is a form's memory in addition to the packed masks.
agreement is the fraction of queries with the same answer as exact one-shot. --growth also writes
its rows as JSON lines, to a file with the figure's name and the ending .jsonl. The 1,000,000 masks
are read from a Zarr array (benchmarks/streaming.py).
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from commandline import Parser, figure_file, folder, run_program, whole
from forms import BATCH, Form, by_bits, dense_forms, reading
from growth import Row, draw, print_exponents
from intervals import wilson
from masks import Masks, load_masks
from streaming import measure_streamed

from supsup_core.bits.infer import BIT_ALGORITHMS, BitInference
from supsup_core.bits.threads import Threads
from supsup_core.inference.algorithms import Options
from supsup_core.inference.objectives import OBJECTIVES

GROWTH = (10, 100, 1000, 2500, 10_000, 100_000)
STREAMED = 1_000_000


def make_forms(masks: Masks, options: argparse.Namespace) -> dict[str, Form]:
    """Make the forms to measure on these masks: a mapping from name to form."""
    bits = bits_of(masks, options)
    objective = options.objective
    # Queries per round. With more masks a query takes longer, so a round has fewer queries.
    number = max(4, min(40, 400_000 // len(masks.rows)))
    forms = {
        "read": reading(masks.rows, Threads(options.threads)),
        "one_shot": by_bits(bits, "one_shot", objective, number),
        "one_shot_ranked": by_bits(bits, "one_shot_ranked", objective, 2 * number),
        "binary": by_bits(bits, "binary", objective, 4),
        "batched": by_bits(bits, "one_shot", objective, BATCH, together=BATCH),
    }
    if len(masks.rows) > options.binary_tasks:
        del forms["binary"]
    if len(masks.rows) <= options.dense_tasks:
        forms |= dense_forms(masks, objective, options.threads)
    return forms


def bits_of(masks: Masks, options: argparse.Namespace) -> BitInference:
    """Make the inference on packed bits for these masks."""
    return BitInference(
        masks.weights(), masks.spec.layout, masks.rows, masks.spec.num_classes, options.threads
    )


def _share(hits: Iterable[bool]) -> float | None:
    found = list(hits)
    return sum(map(bool, found)) / len(found) if found else None


def measure(masks: Masks, options: argparse.Namespace) -> list[Row]:
    """Let all forms take turns, and return one row per form."""
    torch.set_num_threads(1)
    forms = make_forms(masks, options)
    images, truth = masks.queries(options.queries)
    reference = forms["batched"].infer(images)[0]
    seconds: dict[str, list[float]] = defaultdict(list)
    answers: dict[str, list[tuple[int, int]]] = defaultdict(list)  # form -> (query, task)
    read: dict[str, list[float]] = defaultdict(list)
    for name, form in forms.items():
        torch.set_num_threads(form.torch_threads)
        form.infer(images[: form.together])  # compiles, and touches the pages of memory
        if form.answers_all:
            found, share = form.infer(images)
            answers[name], read[name] = list(enumerate(found)), [share]
    for turn in range(options.rounds):
        for name, form in forms.items():
            torch.set_num_threads(form.torch_threads)
            for start in range(0, form.queries_a_round, form.together):
                index = (np.arange(form.together) + start + turn * 7) % len(images)
                chosen = images[index]
                began = time.perf_counter()
                found, share = form.infer(chosen)
                seconds[name].append((time.perf_counter() - began) / form.together)
                if not form.answers_all:
                    answers[name] += zip(index.tolist(), found, strict=False)
                    read[name].append(share)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    rows = []
    for name, form in forms.items():
        asked = answers[name]
        rows.append(
            Row(
                algorithm=name,
                num_tasks=len(masks.rows),
                seconds_per_inference=medians[name],
                bits_read_fraction=statistics.mean(read[name]),
                agreement=_share(t == reference[q] for q, t in asked),
                ratio_dense=medians["dense"] / medians[name] if "dense" in medians else None,
                ratio_read=medians["read"] / medians[name],
                packed_bytes=masks.rows.nbytes,
                extra_bytes=form.extra_bytes,
                task_accuracy=_share(t == truth[q] for q, t in asked),
                num_inferences=len(asked),
                num_timed=len(seconds[name]) * form.together,
                num_trained=masks.num_trained,
                objective=options.objective,
                threads=options.threads,
            )
        )
    return rows


def print_rows(rows: list[Row], *, as_json: bool) -> None:
    """Print rows as JSON lines or as a table."""
    if as_json:
        for row in rows:
            print(json.dumps(asdict(row)), flush=True)
        return
    print(
        "masks    form             ms per inference   x dense    x read   bits read   agrees"
        "   right      MB"
    )
    for row in rows:
        by_dense = f"{row.ratio_dense:9.0f}" if row.ratio_dense else " " * 9
        agreed = "" if row.agreement is None else f"{row.agreement:.4f}"
        right = "" if row.task_accuracy is None else f"{row.task_accuracy:.4f}"
        print(
            f"{row.num_tasks:<8} {row.algorithm:16} {1000 * row.seconds_per_inference:16.3f} "
            f"{by_dense} {row.ratio_read:9.3f} {row.bits_read_fraction:11.4f} {agreed:>8} "
            f"{right:>7} {row.extra_bytes / 1e6:7.0f}",
            flush=True,
        )


def print_agreement(masks: Masks, options: argparse.Namespace) -> None:
    """Print how often ranked gives the exact answer, and how often each gives the right task."""
    torch.set_num_threads(1)
    bits = bits_of(masks, options)
    images, truth = masks.queries(options.agreement, seed=1)
    for name, objective in OBJECTIVES.items():
        found = {
            algorithm: BIT_ALGORITHMS[algorithm](bits, images, objective, Options())
            for algorithm in ("one_shot", "one_shot_ranked")
        }
        exact, ranked = (one.tasks.numpy() for one in found.values())
        low, high = wilson(int((exact == ranked).sum()), len(truth))
        print(
            f"{name}: ranked gives the exact answer in {(exact == ranked).mean():.4%} "
            f"(95 %: {low:.4%} to {high:.4%}) of {len(truth)} queries among {len(masks.rows)} "
            f"masks; bits read: ranked {found['one_shot_ranked'].bits_read_fraction:.2%}, exact "
            f"{found['one_shot'].bits_read_fraction:.2%}; task accuracy: exact "
            f"{(exact == truth).mean():.4f}, ranked {(ranked == truth).mean():.4f}"
        )


def measure_growth(options: argparse.Namespace) -> None:
    """Measure each number of masks, draw the figure, and print the exponents of time."""
    rows: list[Row] = []
    for num_masks in GROWTH:
        rows += measure(load_masks(options.run, num_masks), options)
        print_rows([row for row in rows if row.num_tasks == num_masks], as_json=options.json)
    if options.stream:
        streamed = measure_streamed(options.run, STREAMED, options.stream, options)
        print_rows(streamed, as_json=options.json)
        rows += streamed
    lines = [json.dumps(asdict(row)) for row in rows]
    options.growth.with_suffix(".jsonl").write_text("\n".join(lines) + "\n")
    draw(rows).savefig(options.growth, dpi=120)
    print_exponents(rows, sys.stderr if options.json else sys.stdout)


def main() -> None:
    """Read the options, measure and print."""
    parser = Parser(__doc__)
    parser.add_argument("--run", type=folder, help="folder of a run (default: train a few masks)")
    parser.add_argument("--tasks", type=whole(), default=2500, help="k, number of masks")
    parser.add_argument("--objective", choices=OBJECTIVES, default="H")
    parser.add_argument("--rounds", type=whole(), default=3)
    parser.add_argument("--queries", type=whole(), default=512, help="queries for accuracy")
    parser.add_argument("--threads", type=whole(at_most=1024), default=os.cpu_count())
    parser.add_argument("--dense-tasks", type=whole(), default=2500)
    parser.add_argument("--binary-tasks", type=whole(), default=10_000)
    parser.add_argument(
        "--agreement", type=whole(), help="number of queries to compare ranked with exact"
    )
    parser.add_argument("--growth", type=figure_file, help="figure to draw, .svg or .png")
    parser.add_argument(
        "--stream", type=Path, help="folder with 40 GB of free space, for 1,000,000 masks"
    )
    parser.add_argument("--json", action="store_true", help="print one object per line")
    options = parser.parse_args()
    if options.stream and not options.growth:
        parser.error("--stream must be given with --growth, got --stream alone: add --growth FILE")
    if options.growth:
        measure_growth(options)
        return
    masks = load_masks(options.run, options.tasks)
    if options.agreement:
        print_agreement(masks, options)
        return
    print_rows(measure(masks, options), as_json=options.json)


if __name__ == "__main__":
    run_program(main)
