"""Search recipes on a grid, by accuracy, expected task accuracy, and seconds per task.

    python benchmarks/recipes.py --tasks 32 steps=200 learning_rate=1e-3,2e-3 smoothing=0.9,0.95
    python benchmarks/recipes.py steps=64,128 temperature=2 --with network=fc_1024_1024 train=fast

Each combination of values is one recipe, and trains the same permuted tasks in blocks. One process
trains a recipe, and there is one process per core. The masks are measured on the whole test set
(95 % interval by Student's t over tasks). The tasks of a block share the order of their images, so
this interval is too narrow if there are few blocks. Then 48 single test images of every task are
one-shot queries among all masks of the recipe.

The margin z of a query is how far the right task's slope lies below the mean of the other slopes,
in standard deviations of the other slopes. If the other slopes were normal, the right task would be
found among k tasks with probability Phi(z)^(k - 1). The mean of this probability over the queries
is the task accuracy to expect among 250 and 2500 masks, although far fewer masks were trained.
Accuracy alone misleads: a recipe with a higher accuracy can train masks that are too similar. The
columns H and G are the task accuracies of the objectives H and G. Each has three numbers: measured
among --tasks masks, and expected among 250 and 2500 masks.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context

import numpy as np
import torch
from children import end_with_parent
from commandline import Parser, run_program, whole
from intervals import interval
from jobs import compose, resolved_job

from harness.config.schema import Config
from harness.data.catalogue import load_dataset
from harness.data.names import DATASETS
from harness.plan.blocks import train_units
from harness.run.spec import RunSpec
from harness.workers.training import TrainWorker
from supsup_core.data import ImageSet, normalise
from supsup_core.engines.choose import engine_for
from supsup_core.inference.margin import expected_task_accuracy
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.states.bits import BitStates

BLOCK = 8
FEWEST_TASKS = 3  # the standard deviation of the wrong tasks' slopes needs two wrong tasks
QUERIES_A_TASK = 48
ASKED = ("H", "G")  # objectives


@dataclass(frozen=True)
class Found:
    """Results of one recipe.

    Attributes:
        accuracies: accuracy of each task, with the task given.
        seconds: training seconds per task.
        density: mean density of the masks.
        task_accuracy: a mapping from objective to three task accuracies: measured among the trained
            masks, expected among 250 masks, and expected among 2500 masks.
    """

    accuracies: list[float]
    seconds: float
    density: float
    task_accuracy: dict[str, tuple[float, float, float]]


def job(choice: dict[str, str], data: str, others: Sequence[str] = ()) -> Config:
    """Make the configuration that trains by a recipe.

    Args:
        choice: keys of `train` and their values.
        data: name of the data set.
        others: more options of `scale`, such as network=fc_1024_1024.
    """
    overrides = [f"train.{key}={value}" for key, value in choice.items()]
    fixed = [f"data={data}", "tasks=2500", f"train.block={BLOCK}"]
    return compose([*fixed, *others, *overrides])


def try_recipe(
    choice: dict[str, str], data: str, num_tasks: int, others: Sequence[str] = ()
) -> Found:
    """Train `num_tasks` tasks by one recipe, measure the masks, and infer tasks among the masks.

    Args:
        choice: keys of `train` and their values.
        data: name of the data set.
        num_tasks: number of tasks to train, at least FEWEST_TASKS.
        others: more options of `scale`.
    """
    loaded = load_dataset(data)
    spec = resolved_job(job(choice, data, others), loaded)
    test = loaded.test
    worker = TrainWorker(spec, loaded.train, test, name="search")
    began = time.perf_counter()
    trained = [worker.run(unit) for unit in train_units(num_tasks, BLOCK, [])]
    seconds = (time.perf_counter() - began) / num_tasks
    rows = np.concatenate([unit.rows for unit in trained])
    found = {}
    for name in ASKED:
        slopes = _slopes(spec, test, rows, name)
        truth = np.repeat(np.arange(num_tasks), QUERIES_A_TASK)
        right = float((slopes.argmin(1) == truth).mean())
        asked = torch.from_numpy(slopes), torch.from_numpy(truth)
        few, many = (expected_task_accuracy(*asked, among) for among in (250, 2500))
        found[name] = (right, few, many)
    accuracies = [a for unit in trained for a in unit.tasks["accuracy"].to_pylist()]
    densities = [d for unit in trained for d in unit.tasks["density"].to_pylist()]
    return Found(accuracies, seconds, float(np.mean(densities)), found)


def _slopes(spec: RunSpec, test: ImageSet, rows: np.ndarray, objective: str) -> np.ndarray:
    """Compute d objective / d alpha, (Q, T), for QUERIES_A_TASK single images of each task."""
    states = BitStates(spec.layout, rows, torch.device("cpu"))
    engine = engine_for(spec.network, spec.weights(), states, spec.num_classes)
    chosen = test.images[:QUERIES_A_TASK]
    pixels = np.concatenate([spec.task(i).images(chosen) for i in range(len(rows))])
    images = normalise(torch.from_numpy(pixels), test.mean, test.std)[:, None]
    alphas = torch.full((1, len(rows)), 1 / len(rows))
    minimised = OBJECTIVES[objective]
    found = [engine.gradient(part, minimised)(alphas).numpy() for part in images.split(32)]
    return np.concatenate(found)


def main() -> None:
    """Read the grid, try all recipes, and print the most accurate recipe first."""
    parser = Parser(__doc__)
    parser.add_argument("--data", choices=DATASETS, default="mnist")
    parser.add_argument("--tasks", type=whole(FEWEST_TASKS), default=32, help="tasks per recipe")
    parser.add_argument(
        "--with",
        dest="others",
        metavar="KEY=VALUE",
        nargs="+",
        default=[],
        help="options of scale for every recipe, such as network=fc_1024_1024 train=fast",
    )
    parser.add_argument("grid", nargs="+", help="key of train, with values: key=value,value,...")
    arguments = parser.parse_args()
    if wrong := [item for item in arguments.grid if "=" not in item]:
        parser.error(f"grid must be KEY=VALUE,VALUE,..., got {wrong[0]}: try steps=100,200")
    keys = [item.partition("=")[0] for item in arguments.grid]
    if len({*keys}) < len(keys):
        parser.error(f"grid must have each key once, got {' '.join(keys)}: try steps=100,200")
    values = [item.partition("=")[2].split(",") for item in arguments.grid]
    choices = [dict(zip(keys, chosen, strict=True)) for chosen in product(*values)]
    for choice in choices:
        job(choice, arguments.data, arguments.others)  # refuses a wrong recipe
    context = get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, initializer=end_with_parent) as pool:
        fixed = arguments.data, arguments.tasks, arguments.others
        calls = [pool.submit(try_recipe, choice, *fixed) for choice in choices]
        found = [call.result() for call in calls]
    print(
        "accuracy (95 %)           H: --tasks, 250, 2500  G: --tasks, 250, 2500  s per task, recipe"
    )
    for got, choice in sorted(zip(found, choices, strict=True), key=_mean, reverse=True):
        mean, low, high = interval(got.accuracies)
        described = " ".join(f"{key}={value}" for key, value in choice.items())
        inferred = "   ".join(
            " ".join(f"{value:.4f}" for value in got.task_accuracy[name]) for name in ASKED
        )
        print(f"{mean:.4f} [{low:.4f}, {high:.4f}]   {inferred}   {got.seconds:.3f}  {described}")


def _mean(row: tuple[Found, dict[str, str]]) -> float:
    return interval(row[0].accuracies)[0]


if __name__ == "__main__":
    run_program(main)
