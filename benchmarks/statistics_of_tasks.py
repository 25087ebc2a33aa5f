"""Score the stored states of a run with their own statistics, and with those of another task.

    python harness/scale.py network=small_conv data=fashion_mnist family=split tasks=5 run_dir=RUN
    python benchmarks/statistics_of_tasks.py --run RUN

A network with batch normalisation stores its running means and variances with each task. This
program shows the reason. It scores each task on the whole test set twice: with its own statistics,
and with the statistics of the next task (the last task gets the statistics of the first task). The
program prints both accuracies of each task, and their means with a 95 % interval by Student's t
over tasks.
"""

from dataclasses import replace

import torch
from commandline import Parser, folder, run_program, whole
from intervals import interval
from masks import load_masks

from supsup_core.training.measure import PlainMeasure


def main() -> None:
    """Read the run, score and print."""
    parser = Parser(__doc__)
    parser.add_argument("--run", type=folder, required=True, help="folder of the run")
    parser.add_argument("--tasks", type=whole(2), default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    masks = load_masks(options.run, options.tasks)
    spec = masks.spec
    if masks.num_trained < 2:
        parser.error("--run must be a run with at least 2 tasks, got 1: try another run")
    if not spec.layout.floats:
        parser.error(
            f"--run must be a run whose states have statistics, got network={spec.config.network}: "
            "try a run with network=small_conv"
        )
    cpu, seed = torch.device("cpu"), spec.config.seed
    measure = PlainMeasure(spec.network, spec.layout, masks.data.test, seed, cpu)
    states = spec.layout.unpack(masks.rows)
    own, others = [], []
    for task_id, state in enumerate(states):
        task = spec.task(task_id)
        swapped = replace(state, floats=states[(task_id + 1) % len(states)].floats)
        own.append(measure(task, state).accuracy)
        others.append(measure(task, swapped).accuracy)
        print(f"task {task_id}: own statistics {own[-1]:.4f}, another task's {others[-1]:.4f}")
    for name, accuracies in (("own", own), ("another task's", others)):
        mean, low, high = interval(accuracies)
        print(f"{name}: {mean:.4f} [{low:.4f}, {high:.4f}] over {len(accuracies)} tasks")


if __name__ == "__main__":
    run_program(main)
