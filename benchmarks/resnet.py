"""Measure a training step of a residual network: two one-thread actors, and one plain program.

    python benchmarks/resnet.py --tasks 2 --batch 128 --steps 6 --rounds 3

    ours    two processes of one thread; each trains its own block of tasks with the trainer that a
            run gets
    plain   one process of two threads; it trains one task at a time with autograd and torch.optim,
            in the layout "channels last"

Both sides train slim ResNet-18 in float32 by edge-popup (density 0.3) and Adam on random images of
28x28 pixels. The sides take turns. The first step of a turn is not counted. A time is given in
seconds per step and task, as a median over the rounds. The two processes of `ours` work at the same
time. So for `ours`, the seconds of a step of one process are divided by its number of tasks, and by
two. The last line is the ratio of both times, and its range over the rounds. The memory of a
process is its largest resident size, with Python and torch. Other programs slow `plain` down more
than `ours`, because the threads of `plain` wait for each other.

    python benchmarks/resnet.py --imagenet --tasks 2 --batch 4

measures ResNet-50 on random images of 224x224 pixels instead: a training step of a block, the bytes
of the packed rows, and the inference of a task among the trained states.
"""

import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
import torch
from children import end_with_parent
from commandline import Parser, need_memory, run_program, whole
from torch import Tensor, nn

from supsup_core.data import ImageSet, batches, normalise
from supsup_core.engines.choose import engine_for, states_for
from supsup_core.inference.algorithms import Options
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.protocol import layout_of
from supsup_core.networks.module import as_network
from supsup_core.networks.resnet import resnet18_slim, resnet50
from supsup_core.tasks.protocol import Task
from supsup_core.training.choose import trainer_for
from supsup_core.training.recipe import Recipe

DENSITY, NUM_CLASSES, NUM_ACTORS = 0.3, 10, 2
SMALL, LARGE = (1, 28, 28), (3, 224, 224)


def recipe_of(steps: int, batch: int) -> Recipe:
    """Make the recipe of both sides."""
    return Recipe(steps, batch, 1e-3, optimizer="adam", momentum=0.9, smoothing=0.999)


def made_images(shape: tuple[int, ...], num: int) -> ImageSet:
    """Make random images with random labels."""
    drawn = np.random.default_rng(0)
    pixels = drawn.integers(0, 256, (num, *shape), dtype=np.uint8)
    labels = drawn.integers(0, NUM_CLASSES, num, dtype=np.uint8)
    return ImageSet(pixels, labels, (0.5,), (0.29,))


def memory_of_process() -> float:
    """Return the largest resident size of this process in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def ours(num_tasks: int, batch: int, steps: int, first: int) -> tuple[float, float]:
    """Train a block in this process. Returns: seconds per step and task, and GB of memory."""
    torch.set_num_threads(1)
    data = made_images(SMALL, 8 * batch)
    network = as_network("resnet18_slim", resnet18_slim(SMALL, NUM_CLASSES), SMALL)
    recipe = recipe_of(steps + 1, batch)
    trainer = trainer_for(network, EdgePopup(DENSITY), data, data, recipe, seed=0)
    tasks, ends = [Task(first + i) for i in range(num_tasks)], []
    for _ in trainer.stages(
        tasks, [recipe.steps], on_step=lambda done: ends.append(time.perf_counter())
    ):
        pass
    return (ends[-1] - ends[0]) / (steps * num_tasks), memory_of_process()


class Popup(torch.autograd.Function):
    """The mask of the largest scores; the gradient passes unchanged."""

    @staticmethod
    def forward(ctx: object, scores: Tensor) -> Tensor:
        """Return 1 for the kept scores and 0 for the others."""
        num = scores.numel()
        lowest = scores.flatten().kthvalue(num - round(DENSITY * num) + 1).values
        return (scores >= lowest).to(scores.dtype)

    @staticmethod
    def backward(ctx: object, slope: Tensor) -> Tensor:  # type: ignore[override]
        """Return the gradient of the mask."""
        return slope


class PlainMask(nn.Module):
    """A parametrisation: weight * mask of |scores|."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        bound = weight[0].numel() ** -0.5
        self.scores = nn.Parameter(torch.empty_like(weight).uniform_(-bound, bound))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the effective weights."""
        masked: Tensor = weight * Popup.apply(self.scores.abs())
        return masked


def plain(batch: int, steps: int) -> tuple[float, float]:
    """Train one task in this process. Returns: seconds per step, and GB of memory."""
    torch.set_num_threads(NUM_ACTORS)
    torch.manual_seed(0)
    module = resnet18_slim(SMALL, NUM_CLASSES).to(memory_format=torch.channels_last)
    masks = []
    for layer in list(module.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.requires_grad_(False)
            layer.weight.copy_(layer.weight.sign() * (2 / layer.weight[0].numel()) ** 0.5)
            masks.append(PlainMask(layer.weight))
            nn.utils.parametrize.register_parametrization(layer, "weight", masks[-1])
    optimizer = torch.optim.Adam([mask.scores for mask in masks], 1e-3)
    data = made_images(SMALL, 8 * batch)
    order = batches(0, 0, len(data.images), batch)
    ends = []
    for _ in range(steps + 1):
        index = next(order)
        pixels = torch.from_numpy(data.images[index])
        images = normalise(pixels, data.mean, data.std).to(memory_format=torch.channels_last)
        labels = torch.from_numpy(data.labels[index].astype(np.int64))
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(images), labels).backward()
        optimizer.step()
        ends.append(time.perf_counter())
    return (ends[-1] - ends[0]) / steps, memory_of_process()


def compare(num_tasks: int, batch: int, steps: int, rounds: int) -> None:
    """Let both sides take turns, and print their times and the ratio."""
    new_process = partial(
        ProcessPoolExecutor, mp_context=get_context("spawn"), initializer=end_with_parent
    )
    ratios, times, memory = [], {"ours": [], "plain": []}, {"ours": 0.0, "plain": 0.0}
    for _ in range(rounds):
        with new_process(NUM_ACTORS) as actors:
            calls = [
                actors.submit(ours, num_tasks, batch, steps, first) for first in (0, num_tasks)
            ]
            found = [call.result() for call in calls]
        with new_process(1) as one:
            other = one.submit(plain, batch, steps).result()
        times["ours"].append(statistics.mean(seconds for seconds, _ in found) / NUM_ACTORS)
        times["plain"].append(other[0])
        memory["ours"] = max(memory["ours"], *(size for _, size in found))
        memory["plain"] = max(memory["plain"], other[1])
        ratios.append(times["plain"][-1] / times["ours"][-1])
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        print(
            f"{name:6} {1e3 * middle:7.0f} ms per step and task   {3600 / middle:7.0f} task-steps "
            f"per hour   {memory[name]:.2f} GB per process"
        )
    ratios.sort()
    print(f"ours / plain: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


def imagenet(num_tasks: int, batch: int, steps: int) -> None:
    """Train, pack, superpose and infer with ResNet-50, and print seconds and bytes."""
    torch.set_num_threads(NUM_ACTORS)
    data = made_images(LARGE, 4 * batch)
    network = as_network("resnet50", resnet50(LARGE, NUM_CLASSES), LARGE)
    method, began = EdgePopup(DENSITY), time.perf_counter()
    recipe, ends = recipe_of(steps + 1, batch), []
    trainer = trainer_for(network, method, data, data, recipe, seed=0)
    tasks = [Task(i) for i in range(num_tasks)]
    stages = trainer.stages(
        tasks, [recipe.steps], on_step=lambda done: ends.append(time.perf_counter())
    )
    ((states, _),) = stages
    seconds = (ends[-1] - ends[0]) / (steps * num_tasks)
    print(f"first step: {ends[0] - began:.1f} s   later: {seconds:.2f} s per step and task")
    layout = layout_of(network, method)
    began = time.perf_counter()
    rows = layout.pack(states)
    again = layout.unpack(rows)
    same = all(
        np.array_equal(one, two)
        for state, other in zip(states, again, strict=True)
        for one, two in zip(state.planes, other.planes, strict=True)
    )
    print(
        f"packed: {rows.shape[1]} bytes per task for {layout.num_bits} bits, "
        f"{time.perf_counter() - began:.2f} s, read back {'unchanged' if same else 'CHANGED'}"
    )
    device = torch.device("cpu")
    stored = states_for(network, layout, rows, device)
    engine = engine_for(network, network.weights(0), stored, NUM_CLASSES)
    shown = normalise(torch.from_numpy(data.images[:batch]), data.mean, data.std)
    for algorithm in ("one_shot", "max_logit"):
        began = time.perf_counter()
        objective = OBJECTIVES["H"] if algorithm == "one_shot" else None
        answer = engine.infer(shown[None], algorithm, objective, Options())
        seconds = time.perf_counter() - began
        print(f"{algorithm}: task {int(answer.tasks)} in {seconds:.2f} s ({type(engine).__name__})")
    print(f"memory: {memory_of_process():.2f} GB")


def main() -> None:
    """Read the options, measure and print."""
    parser = Parser(__doc__)
    parser.add_argument("--tasks", type=whole(), default=2, help="tasks per block")
    parser.add_argument("--batch", type=whole(2), default=128, help="images per batch")
    parser.add_argument("--steps", type=whole(), default=6, help="counted steps of a turn")
    parser.add_argument("--rounds", type=whole(), default=3, help="turns of each side")
    parser.add_argument("--imagenet", action="store_true", help="measure ResNet-50 instead")
    options = parser.parse_args()
    values = 45_000_000 if options.imagenet else 860_000  # activations and gradients of an image
    need_memory(4 * values * options.batch, "--batch")
    if options.imagenet:
        imagenet(options.tasks, options.batch, options.steps)
    else:
        compare(options.tasks, options.batch, options.steps, options.rounds)


if __name__ == "__main__":
    run_program(main)
