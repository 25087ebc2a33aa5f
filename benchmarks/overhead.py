"""What Ray, the store and the log add to training, beside bare processes that do the same.

    python benchmarks/overhead.py --tasks 256 train=fast data=mnist

bare  as many one-thread processes as cores, each training block after block from one
      queue; the masks stay in memory
run   `harness/scale.py` with the same options and no evaluation

Both take turns, each for `--rounds` rounds. Seconds a task are those between the first
block's end and the last one's, over the tasks that ended in between: steady training,
without what either needs to start, which is printed beside it, with all a run's seconds.
"""

import argparse
import multiprocessing as mp
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from jobs import compose, resolved_job

from analysis.load import load
from harness.data.catalogue import load_dataset
from harness.plan.units import TrainUnit, train_units
from harness.run.spec import RunSpec
from harness.workers.training import TrainWorker

SCALE = Path(__file__).resolve().parent.parent / "harness" / "scale.py"


def _train(spec: RunSpec, units: Any, ends: Any) -> None:
    """One process of the bare form: train units until there are none."""
    data = load_dataset(spec.config.data)
    worker = TrainWorker(spec, data.train, data.test, name="bare")
    while (unit := units.get()) is not None:
        worker.run(unit)
        ends.put((time.time(), len(unit.task_ids)))


def bare(spec: RunSpec, units: list[TrainUnit]) -> list[tuple[float, int]]:
    """When each unit ended, and how many tasks it had."""
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
    """The same of a run of the main job, from the times in its log."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(SCALE), *options]
        command += ["evaluate.checkpoints=[]", f"run_dir={folder}/run"]
        subprocess.run(command, check=True, capture_output=True)
        tasks = load(f"{folder}/run", "tasks").to_pandas()
    sizes = tasks.groupby("finished_at").size()
    return [(when.timestamp(), int(size)) for when, size in sizes.items()]


def steady(ends: list[tuple[float, int]]) -> float:
    """Seconds a task from the first unit's end to the last one's."""
    ends = sorted(ends)
    return (ends[-1][0] - ends[0][0]) / sum(size for _, size in ends[1:])


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("options", nargs="*", help="of the main job")
    arguments = parser.parse_args()
    options = [*arguments.options, f"tasks={arguments.tasks}"]
    config = compose(options)
    spec = resolved_job(config, load_dataset(config.data))
    units = list(train_units(arguments.tasks, int(spec.config.train.block), []))
    rates: dict[str, list[float]] = {"bare": [], "run": []}
    starts, totals = [], []
    for _ in range(arguments.rounds):
        rates["bare"].append(steady(bare(spec, units)))
        began = time.time()
        ends = whole_run(options)
        totals.append(time.time() - began)
        rates["run"].append(steady(ends))
        # The first units end after start and one block of training.
        starts.append(min(ends)[0] - began - steady(ends) * len(units[0].task_ids) * os.cpu_count())
    for form, seconds in rates.items():
        print(
            f"{form:5} {statistics.median(seconds):.4f} s a task "
            f"({min(seconds):.4f} to {max(seconds):.4f})"
        )
    added = [r / b - 1 for b, r in zip(rates["bare"], rates["run"], strict=True)]
    print(
        f"added while training: {statistics.median(added):.1%} "
        f"({min(added):.1%} to {max(added):.1%}); before it, once: "
        f"{statistics.median(starts):.1f} s of {statistics.median(totals):.1f} s"
    )


if __name__ == "__main__":
    main()
