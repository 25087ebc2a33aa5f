"""Search recipes on a grid: accuracy, how surely tasks are told apart, and seconds a task.

    python benchmarks/recipes.py --tasks 32 steps=200 learning_rate=1e-3,2e-3 smoothing=0.9,0.95

Each combination trains the same permuted tasks in blocks, in one process of as many as
there are cores, and is measured on the whole test set (95 % by Student's t over tasks).
Then 8 single test images of every task are one-shot queries among all its masks.
The margin of a query is how far the right task's slope lies below the mean of the others,
in their standard deviations: accuracy among k tasks needs a margin that grows with
sqrt(2 ln k), 3.3 for 250 and 4 for 2500; the table gives its 1 % quantile.
"""

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context

import numpy as np
import torch
from intervals import interval

from harness.actors import Job, TrainWorker
from harness.commandline import compose_command_line, from_hydra
from harness.datasets import load_dataset
from harness.plan import TrainUnit
from supsup_core.data import ImageSet, normalise
from supsup_core.inference import PackedGradient
from supsup_core.masks import MaskLayout
from supsup_core.networks import fixed_weights
from supsup_core.objectives import OBJECTIVES
from supsup_core.superposition import PackedMasks

BLOCK = 8
QUERIES_A_TASK = 8


@dataclass(frozen=True)
class Found:
    """What one recipe gave; margins by objective."""

    accuracies: list[float]
    seconds: float
    density: float
    task_accuracy: dict[str, float]
    margin: dict[str, float]


def try_recipe(choice: dict[str, str], data: str, num_tasks: int) -> Found:
    """Train, measure and infer."""
    loaded = load_dataset(data)
    overrides = [f"train.{key}={value}" for key, value in choice.items()]
    composed = compose_command_line(
        [*overrides, f"data={data}", "tasks=2500", "train.dtype=bfloat16", f"train.block={BLOCK}"]
    )
    assert composed is not None
    job = Job(from_hydra(composed), loaded.side, loaded.num_classes)
    test = loaded.test
    worker = TrainWorker(job, loaded.train, test, name="search")
    began = time.perf_counter()
    trained = []
    for first in range(0, num_tasks, BLOCK):
        ids = tuple(range(first, first + BLOCK))
        trained.append(worker.run(TrainUnit("unit", ids, ids)))
    seconds = (time.perf_counter() - began) / num_tasks
    rows = np.concatenate([unit.rows for unit in trained])
    right, margins = {}, {}
    for name in OBJECTIVES:
        slopes = _slopes(job, test, rows, name)
        truth = np.repeat(np.arange(num_tasks), QUERIES_A_TASK)
        own = slopes[np.arange(len(truth)), truth]
        others = slopes[np.arange(num_tasks) != truth[:, None]].reshape(len(truth), -1)
        right[name] = float((slopes.argmin(1) == truth).mean())
        margins[name] = float(np.quantile((others.mean(1) - own) / others.std(1), 0.01))
    accuracies = [a for unit in trained for a in unit.tasks["accuracy"].to_pylist()]
    densities = [d for unit in trained for d in unit.tasks["density"].to_pylist()]
    return Found(accuracies, seconds, float(np.mean(densities)), right, margins)


def _slopes(job: Job, test: ImageSet, rows: np.ndarray, objective: str) -> np.ndarray:
    """D objective / d alpha (Q, T) of single images, QUERIES_A_TASK of each task in turn."""
    masks = PackedMasks(MaskLayout.of(job.network), rows, torch.device("cpu"))
    weights = fixed_weights(job.network, job.config.seed)
    chosen = test.images[:QUERIES_A_TASK]
    pixels = np.concatenate([job.task(i).images(chosen) for i in range(len(rows))])
    images = normalise(torch.from_numpy(pixels), test.mean, test.std)[:, None]
    alphas = torch.full((1, len(rows)), 1 / len(rows))
    found = []
    for part in images.split(32):
        gradient = PackedGradient(weights, masks, part, OBJECTIVES[objective], job.num_classes)
        found.append(gradient(alphas).numpy())
    return np.concatenate(found)


def main() -> None:
    """Read the grid, try it, print the best first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--tasks", type=int, default=32, help="of each combination")
    parser.add_argument("grid", nargs="+", help="key=value,value,... of train")
    arguments = parser.parse_args()
    keys = [item.partition("=")[0] for item in arguments.grid]
    values = [item.partition("=")[2].split(",") for item in arguments.grid]
    choices = [dict(zip(keys, chosen, strict=True)) for chosen in product(*values)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        calls = [pool.submit(try_recipe, c, arguments.data, arguments.tasks) for c in choices]
        found = [call.result() for call in calls]
    print("accuracy (95 %)            margin H / G  task acc. H / G  density  s/task")
    for got, choice in sorted(zip(found, choices, strict=True), key=_mean, reverse=True):
        mean, low, high = interval(got.accuracies)
        described = " ".join(f"{key}={value}" for key, value in choice.items())
        print(
            f"{mean:.4f} [{low:.4f}, {high:.4f}]  {got.margin['H']:6.2f} {got.margin['G']:6.2f}"
            f"    {got.task_accuracy['H']:.3f} {got.task_accuracy['G']:.3f}"
            f"      {got.density:.3f}   {got.seconds:.3f}  {described}"
        )


def _mean(row: tuple[Found, dict[str, str]]) -> float:
    return interval(row[0].accuracies)[0]


if __name__ == "__main__":
    main()
