"""Measure the driver, the store and the log with more tasks than one machine can train.

    python benchmarks/driver_scale.py data=digits network=mlp network_options.hidden=[24] \
        --tasks 10000 100000

The actors are simulated: each actor has the rows of its unit ready at once. So the program measures
only the driver, the one process that writes. Everything else is the code of the main job: its loop,
its commits with all their flushes to disk, and its log. Each number of tasks is a separate run in a
separate process. A second start of the same run follows in another process, and reads and checks
everything that the first start wrote.

Memory is the peak memory of a process (ru_maxrss). The bytes per task compare two numbers of tasks:
the difference of their peaks is divided by the difference of the numbers.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from commandline import Parser, folder, run_program, whole
from jobs import compose

from harness.config.identity import run_directory
from harness.config.schema import Config
from harness.driver.start import carry_out
from harness.executors.protocol import Outcome, Pool, T, Trainers
from harness.plan.pools import TRAIN
from harness.plan.units import RunUnit, TrainUnit
from harness.run.directory import open_trained
from harness.run.spec import RunSpec
from harness.scale import stages
from harness.workers.task_rows import TRAINED
from harness.workers.training import TrainedUnit


class ReadyActors:
    """An executor with simulated training actors, whose rows are ready at once.

    Args:
        num_actors: number of units that end at the same time.
    """

    def __init__(self, num_actors: int) -> None:
        self._num_actors = num_actors
        self._queue: deque[RunUnit] = deque()
        self._random = np.random.default_rng(0)
        self.began, self.ended = 0.0, 0.0
        self.num_units = 0
        self.simulating = 0.0  # seconds

    def trainers(self) -> Trainers:
        """Describe the simulated actors."""
        return Trainers(self._num_actors, gpus=0.0)

    def forget(self, run: str) -> None:
        """Do nothing, because the command has one run."""

    def share(self, value: Any) -> Any:
        """Return the value itself."""
        return value

    def start(self, pools: Mapping[str, Pool]) -> None:
        """Keep the specification of the run, and the time of the start."""
        self._spec = next(one for one in pools[TRAIN].arguments if isinstance(one, RunSpec))
        self.began = time.perf_counter()

    def submit(self, pool: str, unit: Any, *arguments: Any) -> None:
        """Queue a unit."""
        self._queue.append(unit)

    def busy(self) -> bool:
        """Return whether a unit is queued."""
        return bool(self._queue)

    def poll(self) -> list[Outcome]:
        """Finish one queued unit per actor, and return the outcomes."""
        began = time.perf_counter()
        done = [self._queue.popleft() for _ in range(min(self._num_actors, len(self._queue)))]
        outcomes = [Outcome(TRAIN, unit, self._trained(unit.unit)) for unit in done]
        self.num_units += len(outcomes)
        self.simulating += time.perf_counter() - began
        return outcomes

    def running(self, run: str = "") -> dict[str, float]:
        """Return no units, because no unit is in progress between two polls."""
        return {}

    def runs_here(self) -> bool:
        """Return False: no worker compiles kernels."""
        return False

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call the function in this process."""
        return function(*arguments)

    def describe(self) -> str:
        """Describe the simulated actors in one line."""
        return f"simulated: {self._num_actors} actors"

    def close(self) -> None:
        """Keep the time of the end."""
        self.ended = time.perf_counter()

    def _trained(self, unit: TrainUnit) -> TrainedUnit:
        num, row_bytes = len(unit.missing), self._spec.layout.row_bytes
        rows = np.frombuffer(self._random.bytes(num * row_bytes), np.uint8).reshape(num, -1).copy()
        rows[:, -1] = 0  # the store requires a guard byte of 0 at the end of a row
        table = pa.table(
            {
                "task_id": list(unit.missing),
                "method": [self._spec.config.method] * num,
                "accuracy": self._random.uniform(0.9, 0.95, num),
                "loss": self._random.uniform(0.2, 0.3, num),
                "steps": [self._spec.config.train.steps] * num,
                "train_seconds": self._random.uniform(0.1, 0.2, num),
                "density": np.full(num, 0.5),
                "base_accuracy": [None] * num,
                "free_share": [None] * num,
                "mask_bytes": [row_bytes] * num,
                "worker": [f"train-{unit.task_ids[0] % self._num_actors}"] * num,
                "device": ["cpu"] * num,
                "finished_at": [datetime.now(UTC)] * num,
            },
            schema=TRAINED,
        )
        return TrainedUnit(unit, rows, table)


def one_start(options: list[str], num_actors: int) -> None:
    """Start the main job in this process, and print its figures as one line of JSON."""
    config = compose([*options, "evaluate.checkpoints=[]"])  # the actors only train
    made: list[ReadyActors] = []

    def executors(_: Config) -> ReadyActors:
        made.append(ReadyActors(num_actors))
        return made[-1]

    began = time.perf_counter()
    assert carry_out([config], open_trained, stages(config), executors) == 0
    ended = time.perf_counter()
    found = {
        "seconds": ended - began,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "log_files": len(list((run_directory(config) / "log").glob("*.parquet"))),
    }
    for actors in made:
        found |= {
            "loop_seconds": actors.ended - actors.began,
            "simulating_seconds": actors.simulating,
            "units": actors.num_units,
        }
    print(json.dumps(found))


def in_a_process(arguments: list[str]) -> dict[str, float]:
    """Run `one_start` in another process, and return the figures that it prints."""
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(options: list[str], num_tasks: int, num_actors: int, folder: Path) -> dict[str, float]:
    """Start a run twice, and print the figures of both starts.

    Returns:
        A mapping from "first" and "second" to the peak bytes of this start.
    """
    options = [*options, f"tasks={num_tasks}", f"run_dir={folder}/run"]
    arguments = ["--one", "--actors", str(num_actors), *options]
    first, again = in_a_process(arguments), in_a_process(arguments)
    chunks = folder.glob("run/masks.zarr/masks/c/*/0")
    mask_bytes = sum(path.stat().st_size for path in chunks)
    seconds = first["loop_seconds"]
    print(
        f"{num_tasks:7} tasks in {first['units']:.0f} units: {num_tasks / seconds:.0f} tasks/s, "
        f"{first['units'] / seconds:.0f} units/s, "
        f"{first['log_files'] / seconds:.1f} log files/s, "
        f"{mask_bytes / seconds / 1e6:.0f} MB/s of masks; loop {seconds:.1f} s, including "
        f"simulation {first['simulating_seconds']:.1f} s; total {first['seconds']:.1f} s; "
        f"peak memory {first['peak_bytes'] / 1e6:.0f} MB"
    )
    print(
        f"        second start, {first['log_files']} log files: {again['seconds']:.1f} s, "
        f"peak memory {again['peak_bytes'] / 1e6:.0f} MB",
        flush=True,
    )
    return {"first": first["peak_bytes"], "second": again["peak_bytes"]}


def main() -> None:
    """Read the options, measure and print."""
    parser = Parser(__doc__)
    parser.add_argument("--tasks", type=whole(), nargs="+", default=[10_000, 100_000])
    parser.add_argument("--actors", type=whole(), default=64, help="units that end together")
    parser.add_argument(
        "--folder", type=folder, help="folder of the temporary runs (default: the system's)"
    )
    parser.add_argument("--one", action="store_true", help="measure one start in this process")
    parser.add_argument("options", nargs="*", help="options of the main job")
    arguments = parser.parse_intermixed_args()
    if arguments.one:
        one_start(arguments.options, arguments.actors)
        return
    if len({*arguments.tasks}) < len(arguments.tasks):
        parser.error(f"--tasks must be different numbers, got {arguments.tasks}: try 1000 2000")
    peaks = []
    for num_tasks in arguments.tasks:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as made:
            found = measure(arguments.options, num_tasks, arguments.actors, Path(made))
            peaks.append((num_tasks, found))
    for (less, before), (more, after) in pairwise(peaks):
        for start in before:
            grown = (after[start] - before[start]) / (more - less)
            print(f"{less} to {more} tasks: {grown:.0f} bytes per task at the {start} start")


if __name__ == "__main__":
    run_program(main)
