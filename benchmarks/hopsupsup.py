"""Recover unit masks from Hopfield reservoirs and unlabelled images, on SplitMNIST as in the paper.

    python benchmarks/hopsupsup.py --data mnist --seed 0
    python benchmarks/hopsupsup.py --data mnist --classes      labels 0 to 9 instead of 0 and 1

There are five tasks of two digits each. All tasks train together for one epoch. They train masks
over the hidden units of a fixed 784-2048-2048-10 network. The masks of each hidden layer are stored
in one reservoir. Then each task's masks are recovered by a descent that starts at the mean of the
stored masks, with one step per 64 test images.
"""

import statistics
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from commandline import Parser, need_memory, run_program, whole

from harness.data.catalogue import load_dataset
from harness.data.dataset import Dataset
from harness.data.names import DATASETS
from supsup_core.data import ImageSet, batches, normalise
from supsup_core.networks.protocol import Weights
from supsup_core.networks.units import NORM_EPSILON, UnitMLP, normalised, units
from supsup_core.reservoirs import Hebb, Projection, Quadratic, Storkey
from supsup_core.reservoirs.recovery import Descent, recover
from supsup_core.tasks.make import make_task
from supsup_core.tasks.protocol import Setting
from supsup_core.tasks.split import Split
from supsup_core.training.recipe import Recipe
from supsup_core.training.units import unit_masks_in_stages

NUM_TASKS = 5
RULES: dict[str, type[Quadratic]] = {"storkey": Storkey, "hebb": Hebb, "projection": Projection}
BATCH = 128
TEST_BATCH = 64


class SplitTasks:
    """Images and labels of the five tasks.

    Args:
        data: a data set with ten classes.
        seed: the seed of the order of the images.
        by_class: if True, a label is the class 0 to 9; if False, it is 0 or 1 in every task.
    """

    def __init__(self, data: Dataset, seed: int, *, by_class: bool) -> None:
        self._data, self._seed, self._by_class = data, seed, by_class
        self._tasks = [
            make_task(Split(), i, Setting(seed, NUM_TASKS, data.input_shape[1:], 10))
            for i in range(NUM_TASKS)
        ]

    @property
    def steps(self) -> int:
        """Number of steps in the epoch: the number of full batches of the smallest task."""
        return min(map(len, self._members())) // BATCH

    def _members(self) -> list[np.ndarray]:
        return [task.members(self._data.train.labels) for task in self._tasks]

    def training(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the batches of the epoch: images (5, 128, ...) and labels (5, 128)."""
        members = self._members()
        orders = [batches(self._seed, i, len(m), BATCH) for i, m in enumerate(members)]
        for _ in range(self.steps):
            chosen = [m[next(order)] for m, order in zip(members, orders, strict=True)]
            shown = [self._shown(self._data.train, index) for index in chosen]
            yield torch.stack([x for x, _ in shown]), torch.stack([y for _, y in shown])

    def test(self, task_id: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the test images and labels of a task in batches, in a random order."""
        members = self._tasks[task_id].members(self._data.test.labels)
        order = np.random.default_rng((self._seed, task_id)).permutation(members)
        starts = range(0, len(order), TEST_BATCH)
        return [self._shown(self._data.test, order[i : i + TEST_BATCH]) for i in starts]

    def _shown(self, images: ImageSet, index: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.from_numpy(images.labels[index].astype(np.int64))
        if not self._by_class:
            labels %= Split().classes
        return normalise(torch.from_numpy(images.images[index]), images.mean, images.std), labels


def accuracy(
    network: UnitMLP,
    weights: Weights,
    masks: Sequence[torch.Tensor],
    shown: Sequence[tuple[torch.Tensor, torch.Tensor]],
) -> float:
    """Compute the fraction of images with the right label, for masks of -1 and +1."""
    pairs = zip(network.tensors, masks, strict=True)
    gains = {tensor.name: (mask + 1) / 2 for tensor, mask in pairs}
    right = [(network.logits(weights, gains, x).argmax(dim=1) == y).sum().item() for x, y in shown]
    return sum(right) / sum(len(y) for _, y in shown)


def main() -> None:
    """Read the options, train, recover and print."""
    parser = Parser(__doc__)
    parser.add_argument("--data", choices=DATASETS, default="mnist5k")
    parser.add_argument("--rule", choices=RULES, default="storkey")
    parser.add_argument("--hidden", type=whole(), nargs="+", default=[2048, 2048])
    parser.add_argument("--classes", action="store_true", help="labels are the classes 0 to 9")
    parser.add_argument("--seed", type=whole(0), default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    need_memory(8 * sum(width**2 for width in options.hidden), "--hidden")  # layers, reservoirs
    data = load_dataset(options.data)
    tasks = SplitTasks(data, options.seed, by_class=options.classes)
    network = units(data.input_shape, 10, hidden=options.hidden)
    weights = network.weights(options.seed)
    first, *later = weights.values()
    recipe = Recipe(  # the authors' recipe
        tasks.steps, BATCH, 0.1, optimizer="sgd", momentum=0.9, weight_decay=1e-4
    )
    drives = (
        (normalised(first @ images.flatten(2).transpose(1, 2), NORM_EPSILON), labels)
        for images, labels in tasks.training()
    )
    stages = unit_masks_in_stages(later, drives, NUM_TASKS, recipe, [recipe.steps])
    patterns = [2 * mask.to(torch.float32) - 1 for mask in next(stages)]
    reservoirs = [RULES[options.rule](width) for width in options.hidden]
    for reservoir, layer in zip(reservoirs, patterns, strict=True):
        for pattern in layer:
            reservoir.store(pattern)
    found, own = [], []
    for i in range(NUM_TASKS):
        shown, true = tasks.test(i), [layer[i] for layer in patterns]
        starts = [layer.mean(dim=0) for layer in patterns]
        recovered = recover(network, weights, reservoirs, starts, [x for x, _ in shown], Descent())
        pairs = zip(recovered.masks, true, strict=True)
        wrong = [int((mask != wanted).sum()) for mask, wanted in pairs]
        found.append(accuracy(network, weights, recovered.masks, shown))
        own.append(accuracy(network, weights, true, shown))
        print(
            f"task {i}: no change after {recovered.steps} of {len(shown)} steps, "
            f"{wrong} of {options.hidden} bits wrong, accuracy {found[-1]:.4f}, with the trained "
            f"masks {own[-1]:.4f}",
            flush=True,
        )
    print(
        f"{options.rule}: mean accuracy {statistics.mean(found):.4f}, with the trained masks "
        f"{statistics.mean(own):.4f}; reservoirs {sum(r.num_bytes for r in reservoirs):,} bytes"
    )


if __name__ == "__main__":
    run_program(main)
