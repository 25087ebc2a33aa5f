"""Time task inference against reading the masks once, and against dense float masks.

    python benchmarks/inference.py --run runs/mnist-permuted-2500-fast --tasks 2500
    python benchmarks/inference.py --tasks 2500 --json       one object a line
    python benchmarks/inference.py --run … --agreement 10000  ranked against exact

Every query is one test image of a trained task, as the paper's one-image inference. Without
--run a few masks are trained; what --tasks asks beyond those of the run is drawn from their
densities (distractors). All forms take turns, for --rounds rounds in one process, and a
form's time is its median.

read             all packed bits, read once by as many threads: the wall of a full scan
one_shot         exact, from bits
one_shot_ranked  strongest evidence first
binary           halving, ceil(log2 k) gradients
batched          128 queries handed over together, exact; seconds a query
dense            float masks with autograd, the authors' form: the stored masks are indexed,
                 multiplied by their coefficients, and summed; at k <= --dense-tasks, where
                 its 12 bytes a weight and mask fit
dense_product    the same as one matrix product a layer, without the copies

ratio_dense and ratio_read say how many of a form's inferences go into one of dense, and into
one reading. extra_bytes is what a form holds beyond the packed masks. agreement is
the share of queries whose answer is the exact one-shot's.
"""

import argparse
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numba
import numpy as np
import torch
from intervals import wilson
from masks import Masks, load_masks

from supsup_core.bit_inference import BIT_ALGORITHMS, BitInference
from supsup_core.inference import DenseGradient, Options, one_shot
from supsup_core.objectives import OBJECTIVES, Objective
from supsup_core.threads import Threads

BATCH = 128


@dataclass(frozen=True)
class Row:
    """One line of --json; None where a figure was not taken."""

    algorithm: str
    num_tasks: int
    seconds_per_inference: float
    bits_read_fraction: float
    agreement: float | None
    ratio_dense: float | None
    ratio_read: float
    extra_bytes: int
    task_accuracy: float | None
    num_inferences: int
    num_trained: int
    objective: str
    threads: int


@dataclass(frozen=True)
class Form:
    """A way to infer: queries (Q, 1, P) -> tasks and the share of bits read."""

    infer: Callable[[torch.Tensor], tuple[list[int], float]]
    extra_bytes: int
    queries_a_round: int
    together: int = 1


@numba.njit(nogil=True)
def _sum(words: np.ndarray) -> int:
    total = np.uint64(0)
    for word in words:
        total += word
    return total


def reading(rows: np.ndarray, threads: Threads) -> Form:
    """Read all packed bits once."""
    words = rows.view(np.uint64).reshape(-1)

    def read(queries: torch.Tensor) -> tuple[list[int], float]:
        threads.split(lambda start, end: _sum(words[start:end]), len(words))
        return [], 1.0

    return Form(read, 0, 20)


def by_bits(bits: BitInference, name: str, objective: str, together: int, number: int) -> Form:
    """One of BIT_ALGORITHMS."""

    def infer(queries: torch.Tensor) -> tuple[list[int], float]:
        found = BIT_ALGORITHMS[name](bits, queries, OBJECTIVES[objective], Options())
        return found.tasks.tolist(), found.bits_read_fraction

    return Form(infer, bits.extra_bytes, number, together)


def authors_gradient(
    weights: Sequence[torch.Tensor],
    layers: Sequence[torch.Tensor],
    images: torch.Tensor,
    objective: Objective,
    num_real: int,
) -> torch.Tensor:
    """D objective / d alpha (T, 1, 1) as the authors' code takes it."""
    num_tasks = len(layers[0])
    alphas = torch.full((num_tasks, 1, 1), 1 / num_tasks, requires_grad=True)
    x = images
    for i, (weight, masks) in enumerate(zip(weights, layers, strict=True)):
        chosen = (alphas > 0).flatten()
        effective = weight * (alphas[chosen] * masks[chosen]).sum(dim=0)
        x = (torch.relu(x) if i else x) @ effective.t()
    value = objective(x, num_real).mean()
    return torch.autograd.grad(value, alphas)[0]


def dense_forms(masks: Masks, objective: str) -> dict[str, Form]:
    """The float stack with autograd."""
    layers = [
        torch.from_numpy(mask.astype(np.float32)) for mask in masks.job.layout.unpack(masks.rows)
    ]
    weights, num_real = masks.weights(), masks.job.num_classes
    minimised = OBJECTIVES[objective]

    def authors(queries: torch.Tensor) -> tuple[list[int], float]:
        slopes = authors_gradient(weights, layers, queries[0], minimised, num_real)
        return [int(slopes.argmin())], 1.0

    def product(queries: torch.Tensor) -> tuple[list[int], float]:
        gradient = DenseGradient(weights, layers, queries, minimised, num_real)
        return one_shot(gradient).tasks.tolist(), 1.0

    floats = 4 * sum(layer.numel() for layer in layers)
    return {
        "dense": Form(authors, 3 * floats - masks.rows.nbytes, 1),
        "dense_product": Form(product, floats - masks.rows.nbytes, 2),
    }


def _share(hits: Iterable[bool]) -> float | None:
    found = list(hits)
    return sum(map(bool, found)) / len(found) if found else None


def measure(masks: Masks, options: argparse.Namespace) -> list[Row]:
    """All forms in turns."""
    threads = Threads(options.threads)
    torch.set_num_threads(options.threads)
    bits = BitInference(
        masks.weights(), masks.job.layout, masks.rows, masks.job.num_classes, options.threads
    )
    forms = {
        "read": reading(masks.rows, threads),
        "one_shot": by_bits(bits, "one_shot", options.objective, 1, 40),
        "one_shot_ranked": by_bits(bits, "one_shot_ranked", options.objective, 1, 100),
        "binary": by_bits(bits, "binary", options.objective, 1, 4),
        "batched": by_bits(bits, "one_shot", options.objective, BATCH, BATCH),
    }
    if len(masks.rows) > options.binary_tasks:
        del forms["binary"]
    if len(masks.rows) <= options.dense_tasks:
        forms |= dense_forms(masks, options.objective)
    images, truth = masks.queries(BATCH)
    reference = forms["batched"].infer(images)[0]
    seconds: dict[str, list[float]] = defaultdict(list)
    answers: dict[str, list[tuple[int, int]]] = defaultdict(list)  # query, task
    read: dict[str, list[float]] = defaultdict(list)
    for form in forms.values():
        form.infer(images[: form.together])  # compiled, and pages touched
    for turn in range(options.rounds):
        for name, form in forms.items():
            for start in range(0, form.queries_a_round, form.together):
                index = (np.arange(form.together) + start + turn * 7) % BATCH
                chosen = images[index]
                began = time.perf_counter()
                found, share = form.infer(chosen)
                seconds[name].append((time.perf_counter() - began) / form.together)
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
                extra_bytes=form.extra_bytes,
                task_accuracy=_share(t == truth[q] for q, t in asked),
                num_inferences=len(seconds[name]) * form.together,
                num_trained=masks.num_trained,
                objective=options.objective,
                threads=options.threads,
            )
        )
    return rows


def print_table(rows: list[Row]) -> None:
    """Figures for people."""
    print("form              ms an inference   x dense    x read   bits read   agrees   right   MB")
    for row in rows:
        by_dense = f"{row.ratio_dense:9.0f}" if row.ratio_dense else " " * 9
        agreed = "" if row.agreement is None else f"{row.agreement:.4f}"
        right = "" if row.task_accuracy is None else f"{row.task_accuracy:.4f}"
        print(
            f"{row.algorithm:16} {1000 * row.seconds_per_inference:16.3f} {by_dense} "
            f"{row.ratio_read:9.3f} {row.bits_read_fraction:11.4f} {agreed:>8} {right:>7} "
            f"{row.extra_bytes / 1e6:5.0f}"
        )


def print_agreement(masks: Masks, options: argparse.Namespace) -> None:
    """How often ranked names what exact names, and both the right task."""
    bits = BitInference(
        masks.weights(), masks.job.layout, masks.rows, masks.job.num_classes, options.threads
    )
    images, truth = masks.queries(options.agreement, seed=1)
    for name, objective in OBJECTIVES.items():
        found = {
            algorithm: BIT_ALGORITHMS[algorithm](bits, images, objective, Options())
            for algorithm in ("one_shot", "one_shot_ranked")
        }
        exact, ranked = (one.tasks.numpy() for one in found.values())
        low, high = wilson(int((exact == ranked).sum()), len(truth))
        print(
            f"{name}: ranked names the exact answer in {(exact == ranked).mean():.4%} "
            f"(95 %: {low:.4%} to {high:.4%}) of {len(truth)} queries among {len(masks.rows)}, "
            f"reading {found['one_shot_ranked'].bits_read_fraction:.2%} of the bits "
            f"(exact: {found['one_shot'].bits_read_fraction:.2%}); right: exact "
            f"{(exact == truth).mean():.4f}, ranked {(ranked == truth).mean():.4f}"
        )


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="a run's folder; without it a few are trained")
    parser.add_argument("--tasks", type=int, default=2500, help="k, masks to infer among")
    parser.add_argument("--objective", choices=OBJECTIVES, default="H")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dense-tasks", type=int, default=2500)
    parser.add_argument("--binary-tasks", type=int, default=5000)
    parser.add_argument("--agreement", type=int, help="queries to compare ranked and exact by")
    parser.add_argument("--json", action="store_true", help="one object a line")
    options = parser.parse_args()
    masks = load_masks(options.run, options.tasks)
    if options.agreement:
        print_agreement(masks, options)
        return
    rows = measure(masks, options)
    if options.json:
        for row in rows:
            print(json.dumps(asdict(row)))
    else:
        print_table(rows)


if __name__ == "__main__":
    main()
