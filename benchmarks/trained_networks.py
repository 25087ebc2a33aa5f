"""Compare masks over a fixed network with trained networks, on the same tasks.

    python benchmarks/trained_networks.py --epochs 15 data=emoji family=split tasks=4
        network=resnet18_slim method=edge_popup method_options.density=0.3 train=residual

(This is one line.) The options KEY=VALUE are those of harness/scale.py. For each task, the program
trains a mask with the trainer of a run. Then it trains a network of the same form without a mask:
the weights are drawn from a Kaiming normal distribution, and Adam trains all of them. Both get the
same batches of images, and the same number of steps: --epochs passes over the training images of
the task. The table has the accuracies of both on the test images of each task, with the task given.
The last lines have the means over all test images, with 95 % intervals (Wilson).
"""

from dataclasses import replace

import numpy as np
import torch
from commandline import Parser, real, run_program, whole
from intervals import wilson
from jobs import compose, resolved_job
from torch.nn.functional import cross_entropy

from harness.config.schema import Config
from harness.data.dataset import Dataset
from harness.run.dataset import dataset_of
from harness.run.spec import RunSpec
from harness.workers.training import trainer_of
from supsup_core.data import ImageSet, normalise
from supsup_core.tasks.protocol import Task
from supsup_core.training.batches import batch_images, batch_labels, block_batches

CPU = torch.device("cpu")


def with_epochs(config: Config, data: Dataset, task: Task, epochs: int) -> Config:
    """Set the number of steps to a number of passes over the training images of a task."""
    num_images = len(task.members(data.train.labels))
    size = min(config.train.batch_size, num_images)
    return replace(
        config, train=replace(config.train, batch_size=size, steps=epochs * num_images // size)
    )


def accuracy_of_mask(spec: RunSpec, data: Dataset, task: Task) -> float:
    """Train the mask of a task, and measure its accuracy on the test images of the task."""
    trainer = trainer_of(spec, data.train, data.test, CPU)
    ((states, _),) = trainer.stages([task], [spec.config.train.steps])
    return trainer.measure(task, states[0]).accuracy


def accuracy_of_network(spec: RunSpec, data: Dataset, task: Task, rate: float) -> float:
    """Train all weights of a network on a task, and measure its accuracy.

    Args:
        spec: the specification. Its recipe gives the steps, the batches and the changes of images.
        data: the data set.
        task: the task.
        rate: the learning rate of Adam before it decays.
    """
    network, config = spec.network, spec.config
    weights = {name: weight.requires_grad_() for name, weight in spec.weights().items()}
    ones = {tensor.name: torch.ones(tensor.shape) for tensor in network.tensors}
    floats = {s.name: torch.full(s.shape, s.initial) for s in network.float_specs()}
    optimizer = torch.optim.Adam(weights.values(), lr=rate)
    schedule = replace(spec.recipe, learning_rate=rate)
    order = block_batches([task], data.train, spec.recipe, config.seed)
    for step in range(config.train.steps):
        batch = next(order)
        shown = batch_images(batch, data.train, spec.recipe, config.seed)[0]
        images = normalise(torch.from_numpy(shown), data.train.mean, data.train.std)
        labels = torch.from_numpy(batch_labels([task], data.train, batch.index)[0])
        optimizer.param_groups[0]["lr"] = schedule.learning_rate_at(step)
        optimizer.zero_grad()
        logits = network.logits(weights, ones, images, floats or None, track=bool(floats))
        cross_entropy(logits, labels).backward()
        optimizer.step()
    members = task.members(data.test.labels)
    with torch.no_grad():
        found = [
            network.logits(weights, ones, _inputs(task, data.test, part), floats or None).argmax(1)
            for part in np.array_split(data.test.images[members], -(-len(members) // 250))
        ]
    wanted = torch.from_numpy(batch_labels([task], data.test, members[None])[0])
    return float((torch.cat(found) == wanted).double().mean())


def _inputs(task: Task, split: ImageSet, images: np.ndarray) -> torch.Tensor:
    """Make the normalised inputs of a task from images of the data set."""
    return normalise(torch.from_numpy(task.images(images)), split.mean, split.std)


def main() -> None:
    """Train masks and networks, and print the accuracies."""
    parser = Parser(__doc__)
    parser.add_argument("--epochs", type=whole(), default=15, help="passes over a task's images")
    parser.add_argument(
        "--rate", type=real(above=0), default=1e-3, help="learning rate of the trained networks"
    )
    parser.add_argument("options", nargs="+", help="KEY=VALUE options of harness/scale.py")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = compose(arguments.options)
    data = dataset_of(config, download=config.download)
    spec = resolved_job(config, data)
    normal = {**spec.config.network_options, "init": "kaiming_normal"}
    print(f"{data.name}: {len(data.train.labels)} training and {len(data.test.labels)} test images")
    print("task  classes  training images  steps  mask    trained network")
    rows = []
    for task in map(spec.task, range(config.tasks)):
        own = replace(spec, config=with_epochs(spec.config, data, task, arguments.epochs))
        plain = replace(own, config=replace(own.config, network_options=normal))
        mask = accuracy_of_mask(own, data, task)
        network = accuracy_of_network(plain, data, task, arguments.rate)
        count = len(task.members(data.test.labels))
        rows.append((mask * count, network * count, count))
        print(
            f"{task.task_id:4}  {task.classes}  {len(task.members(data.train.labels)):15}  "
            f"{own.config.train.steps:5}  {mask:.4f}  {network:.4f}",
            flush=True,
        )
    right_mask, right_network, total = np.sum(rows, axis=0)
    for name, right in (("mask", right_mask), ("trained network", right_network)):
        low, high = wilson(round(right), round(total))
        print(f"{name}: {right:.0f} of {total:.0f} = {right / total:.4f} [{low:.4f}, {high:.4f}]")


if __name__ == "__main__":
    run_program(main)
