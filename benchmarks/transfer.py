"""Measure how many training steps tasks need to reach a test accuracy, with and without transfer.

    python benchmarks/transfer.py data=mnist family=rotated --ways mean similar last
    python benchmarks/transfer.py data=fashion_mnist family=split outputs=10 method=exssnet \
        train=adam train.learning_rate=1e-3 --ways knn --tasks 5 --share-of-end 0.95

The program trains one sequence of tasks without transfer, and one sequence for each way of transfer
(train.transfer). The sequences take turns after each task. A task with transfer starts from the
earlier tasks of its own sequence. After every --every steps, the accuracy of the task is measured
on all its test images. The number of steps to the target is the number of finished steps when the
accuracy is first at least the target. The target is one accuracy for all tasks (--target), or a
fraction of the accuracy after the last step of the same task without transfer (--share-of-end). If
a task does not reach the target, its number of steps is set to train.steps plus --every. The mean
over tasks is then too small.

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
        curves: for each trained task, the accuracy after each measured number of steps, in order.
    """

    way: str
    spec: RunSpec
    trainer: Trainer
    rows: list[np.ndarray] = field(default_factory=list)
    carried: Shared = field(default_factory=dict)
    curves: list[dict[int, float]] = field(default_factory=list)

    @classmethod
    def of(cls, way: str, config: Config, data: Dataset) -> "TaskSequence":
        """Make a sequence without tasks."""
        spec = resolved_job(config, data)
        return cls(way, spec, trainer_of(spec, data.train, data.test, torch.device("cpu")))

    def train_next(self, every: int) -> None:
        """Train the next task, and measure its accuracy after every few steps."""
        number, config = len(self.rows), self.spec.config
        task, steps = self.spec.task(number), config.train.steps
        after = sorted({*range(0, steps, every), steps})
        shared = dict(self.carried)
        if sources := source_tasks(self.way, [number], config.seed):
            shared[ROWS] = np.stack([self.rows[i] for i in sources])
        found = {}
        stages = self.trainer.stages([task], after, shared)
        for step, ((state,), carried) in zip(after, stages, strict=True):
            found[step] = self.trainer.measure(task, state, carried).accuracy
        self.curves.append(found)
        self.rows.append(self.spec.layout.pack([state])[0])
        self.carried = carried

    def steps_to(self, targets: Sequence[float], every: int) -> list[float]:
        """Return for each trained task the number of steps to its target accuracy."""
        never = self.spec.config.train.steps + every
        return [
            float(next((step for step, accuracy in curve.items() if accuracy >= target), never))
            for curve, target in zip(self.curves, targets, strict=True)
        ]

    def accuracies(self, place: int) -> list[float]:
        """Return for each trained task an accuracy of its curve: 0 is the first, -1 the last."""
        return [list(curve.values())[place] for curve in self.curves]


def report(
    one: TaskSequence, plain: TaskSequence, targets: Sequence[float], every: int
) -> dict[str, object]:
    """Return the results of a sequence, without its first task.

    Args:
        one: the sequence.
        plain: the sequence without transfer.
        targets: the target accuracy of each task.
        every: number of steps between two measurements.
    """
    steps, before = (found.steps_to(targets, every)[1:] for found in (one, plain))
    saved = [long - short for long, short in zip(before, steps, strict=True)]
    limit = one.spec.config.train.steps
    return {
        "transfer": one.way,
        "tasks": len(steps),
        "steps": _rounded(steps),
        "steps_saved": _rounded(saved),
        "not_reached": sum(number > limit for number in steps),
        "accuracy_before": round(mean(one.accuracies(0)[1:]), 4),
        "accuracy_after": round(mean(one.accuracies(-1)[1:]), 4),
    }


def _rounded(values: list[float]) -> list[float]:
    """Return the mean of values and the ends of its 95 % interval."""
    return [round(value, 1) for value in interval(values)]


def _overrides(arguments: Sequence[str], num_tasks: int, way: str) -> list[str]:
    # No task is inferred, so the outputs may be as many as the classes.
    given = "evaluate.algorithms=[given]", "evaluate.objectives=[H]"
    return [*arguments, *given, f"tasks={num_tasks}", f"train.transfer={way}", "train.block=1"]


def main() -> None:
    """Train the sequences in turns, and print one line of JSON per sequence."""
    parser = Parser(__doc__)
    parser.add_argument("--ways", nargs="+", choices=TRANSFERS[1:], default=["mean"])
    parser.add_argument("--tasks", type=whole(FEWEST_TASKS, 10_000), default=12)
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--target", type=real(above=0, at_most=1), default=0.93)
    target.add_argument(
        "--share-of-end",
        type=real(above=0, at_most=1),
        help="the target as a fraction of the accuracy after the last step without transfer",
    )
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
            one.train_next(arguments.every)
    plain, share = sequences[0], arguments.share_of_end
    targets = [end * share if share else arguments.target for end in plain.accuracies(-1)]
    aim = "share_of_end" if share else "target"
    told = {name: getattr(arguments, name) for name in ("options", aim, "every")}
    print(json.dumps({**told, "processor": platform.processor(), "torch": torch.__version__}))
    for one in sequences:
        print(json.dumps(report(one, plain, targets, arguments.every)))


if __name__ == "__main__":
    run_program(main)
