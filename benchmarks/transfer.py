"""Measure how many training steps tasks need to reach a test accuracy, with and without transfer.

    python benchmarks/transfer.py data=mnist family=rotated --ways mean similar last

The program trains one sequence of tasks without transfer, and one sequence for each way of transfer
(train.transfer). The sequences take turns after each task. A task with transfer starts from the
earlier tasks of its own sequence. After every --every steps, the accuracy of the task is measured
on all its test images. The number of steps to the target is the number of finished steps when the
accuracy is first at least the target (--target). If a task does not reach the target, its number of
steps is set to train.steps plus --every. The mean over tasks is then too small.

For each sequence, the program prints the mean number of steps over all tasks except the first task,
and the mean number of steps that transfer saves. The trainings of a task with and without transfer
use the same images in the same order. So the saved steps of a task are the difference of its two
numbers of steps. The 95 % intervals are over tasks, by Student's t. They assume independent tasks,
but with transfer, each task depends on earlier tasks.
"""

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean

import numpy as np
import torch
from commandline import Parser, real, run_program, whole
from intervals import interval
from jobs import compose, resolved_job

from harness.config.schema import Config
from harness.data.dataset import Dataset
from harness.run.dataset import dataset_of
from harness.run.spec import RunSpec
from harness.workers.training import trainer_of
from supsup_core.methods.protocol import Shared
from supsup_core.names import NO_TRANSFER, TRANSFERS
from supsup_core.training.protocol import Trainer
from supsup_core.training.transfer import ROWS, source_tasks

FEWEST_TASKS = 3  # an interval over the tasks after the first needs two tasks


@dataclass
class TaskSequence:
    """Tasks that are trained one after another with one way of transfer.

    Attributes:
        way: the way of transfer.
        spec: the specification of the run.
        trainer: the trainer of the tasks.
        rows: the packed states of the trained tasks.
        carried: the data for the next task.
        steps: for each trained task, the number of steps to the target.
        accuracies: for each trained task, the accuracies before the first and after the last step.
    """

    way: str
    spec: RunSpec
    trainer: Trainer
    rows: list[np.ndarray] = field(default_factory=list)
    carried: Shared = field(default_factory=dict)
    steps: list[int] = field(default_factory=list)
    accuracies: list[tuple[float, float]] = field(default_factory=list)

    @classmethod
    def of(cls, way: str, config: Config, data: Dataset) -> "TaskSequence":
        """Make a sequence without tasks."""
        spec = resolved_job(config, data)
        return cls(way, spec, trainer_of(spec, data.train, data.test, torch.device("cpu")))

    def train_next(self, every: int, target: float) -> None:
        """Train the next task, and measure its accuracy after every few steps."""
        number, config = len(self.rows), self.spec.config
        task, steps = self.spec.task(number), config.train.steps
        after = sorted({*range(0, steps, every), steps})
        shared = dict(self.carried)
        if sources := source_tasks(self.way, [number], config.seed):
            shared[ROWS] = np.stack([self.rows[i] for i in sources])
        found = []
        for (state,), carried in self.trainer.stages([task], after, shared):
            found.append(self.trainer.measure(task, state, carried).accuracy)
        reached = (step for step, one in zip(after, found, strict=True) if one >= target)
        self.steps.append(next(reached, steps + every))
        self.accuracies.append((found[0], found[-1]))
        self.rows.append(self.spec.layout.pack([state])[0])
        self.carried = carried


def report(one: TaskSequence, plain: TaskSequence) -> dict[str, object]:
    """Return the results of a sequence, without its first task."""
    steps = [float(number) for number in one.steps[1:]]
    saved = [before - now for before, now in zip(plain.steps[1:], steps, strict=True)]
    limit = one.spec.config.train.steps
    return {
        "transfer": one.way,
        "tasks": len(steps),
        "steps": _rounded(steps),
        "steps_saved": _rounded(saved),
        "not_reached": sum(number > limit for number in steps),
        "accuracy_before": round(mean(first for first, _ in one.accuracies[1:]), 4),
        "accuracy_after": round(mean(last for _, last in one.accuracies[1:]), 4),
    }


def _rounded(values: list[float]) -> list[float]:
    """Return the mean of values and the ends of its 95 % interval."""
    return [round(value, 1) for value in interval(values)]


def _overrides(arguments: Sequence[str], num_tasks: int, way: str) -> list[str]:
    return [*arguments, f"tasks={num_tasks}", f"train.transfer={way}", "train.block=1"]


def main() -> None:
    """Train the sequences in turns, and print one line of JSON per sequence."""
    parser = Parser(__doc__)
    parser.add_argument("--ways", nargs="+", choices=TRANSFERS[1:], default=["mean"])
    parser.add_argument("--tasks", type=whole(FEWEST_TASKS, 10_000), default=12)
    parser.add_argument("--target", type=real(above=0, at_most=1), default=0.93)
    parser.add_argument("--every", type=whole(), default=25, help="steps between measurements")
    parser.add_argument("options", nargs="*", help="keys of a run, such as family=rotated")
    arguments = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    ways = (NO_TRANSFER, *dict.fromkeys(arguments.ways))
    configs = {w: compose(_overrides(arguments.options, arguments.tasks, w)) for w in ways}
    data = dataset_of(configs[NO_TRANSFER])
    sequences = [TaskSequence.of(way, config, data) for way, config in configs.items()]
    for _ in range(arguments.tasks):
        for one in sequences:
            one.train_next(arguments.every, arguments.target)
    told = {name: getattr(arguments, name) for name in ("options", "target", "every")}
    print(json.dumps({**told, "processor": platform.processor(), "torch": torch.__version__}))
    for one in sequences:
        print(json.dumps(report(one, sequences[0])))


if __name__ == "__main__":
    run_program(main)
