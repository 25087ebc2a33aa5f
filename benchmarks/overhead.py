"""Measure how much time Ray, the store and the log add to the training of bare processes.

    python benchmarks/overhead.py --tasks 256 train=fast data=mnist

bare  one single-thread process per core; the processes take blocks from one queue and train
      them; the masks stay in memory
run   `harness/scale.py` with the same options and without evaluation

The two forms take turns for `--rounds` rounds. Seconds per task are counted from the end of the
first block to the end of the last block, and divided by the number of tasks that ended in between.
This is the time of steady training, without the time to start. The program also prints the time
that a run takes to start, and the total time of a run.
"""

import multiprocessing as mp
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from children import end_with_parent
from commandline import Parser, run_program, whole
from jobs import compose, resolved_job

from analysis.load import load
from harness.data.catalogue import load_dataset
from harness.plan.blocks import train_units
from harness.plan.units import TrainUnit
from harness.run.spec import RunSpec
from harness.workers.training import TrainWorker

SCALE = Path(__file__).resolve().parent.parent / "harness" / "scale.py"


def _train(spec: RunSpec, units: Any, ends: Any) -> None:
    """Train units from a queue until the queue gives None: one process of the form `bare`."""
    end_with_parent()
    data = load_dataset(spec.config.data)
    worker = TrainWorker(spec, data.train, data.test, name="bare")
    while (unit := units.get()) is not None:
        worker.run(unit)
        ends.put((time.time(), len(unit.task_ids)))


def bare(spec: RunSpec, units: list[TrainUnit]) -> list[tuple[float, int]]:
    """Train all units by bare processes; return each unit's end time and number of tasks."""
    context = mp.get_context("spawn")
    queue, ends = context.Queue(), context.Queue()
    cores = os.cpu_count() or 1
    for unit in [*units, *[None] * cores]:
        queue.put(unit)
    processes = [context.Process(target=_train, args=(spec, queue, ends)) for _ in range(cores)]
    for process in processes:
        process.start()
    found = [ends.get() for _ in units]
    for process in processes:
        process.join()
    return found


def whole_run(options: list[str]) -> list[tuple[float, int]]:
    """Run the main job; return each unit's end time and number of tasks, from the run's log."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(SCALE), *options]
        command += ["evaluate.checkpoints=[]", f"run_dir={folder}/run"]
        subprocess.run(command, check=True, capture_output=True, text=True)
        tasks = load(f"{folder}/run", "tasks").to_pandas()
    sizes = tasks.groupby("finished_at").size()
    return [(when.timestamp(), int(size)) for when, size in sizes.items()]


def steady(ends: list[tuple[float, int]]) -> float:
    """Compute the seconds per task between the end of the first unit and of the last unit."""
    ends = sorted(ends)
    return (ends[-1][0] - ends[0][0]) / sum(size for _, size in ends[1:])


def main() -> None:
    """Read the options, measure and print."""
    parser = Parser(__doc__)
    parser.add_argument("--tasks", type=whole(), default=256)
    parser.add_argument("--rounds", type=whole(), default=3)
    parser.add_argument("options", nargs="*", help="options of the main job")
    arguments = parser.parse_args()
    options = [*arguments.options, f"tasks={arguments.tasks}"]
    config = compose(options)
    spec = resolved_job(config, load_dataset(config.data))
    block = int(spec.config.train.block)
    units = list(train_units(arguments.tasks, block, []))
    if len(units) < 2:
        parser.error(
            f"--tasks must be more than one block of {block} tasks, got {arguments.tasks}: try "
            f"--tasks {16 * block}"
        )
    rates: dict[str, list[float]] = {"bare": [], "run": []}
    starts, totals = [], []
    for _ in range(arguments.rounds):
        rates["bare"].append(steady(bare(spec, units)))
        began = time.time()
        ends = whole_run(options)
        totals.append(time.time() - began)
        rates["run"].append(steady(ends))
        # The first unit ends after the start and the training of one block, so the time of one
        # block is subtracted.
        starts.append(min(ends)[0] - began - steady(ends) * len(units[0].task_ids) * os.cpu_count())
    for form, seconds in rates.items():
        print(
            f"{form:5} {statistics.median(seconds):.4f} s per task "
            f"({min(seconds):.4f} to {max(seconds):.4f})"
        )
    added = [r / b - 1 for b, r in zip(rates["bare"], rates["run"], strict=True)]
    print(
        f"added to steady training: {statistics.median(added):.1%} "
        f"({min(added):.1%} to {max(added):.1%}); start of the run: "
        f"{statistics.median(starts):.1f} s of {statistics.median(totals):.1f} s in total"
    )


if __name__ == "__main__":
    run_program(main)
