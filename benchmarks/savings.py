"""Arithmetic of a training step that could be left out exactly, and what that would save.

    python benchmarks/savings.py --recipe paper

constant pixels       the same in every image of the batch (their columns of the first
                      layer's products follow from a single one)
dead units            hidden units at 0 for every image of the batch (no gradient)
superfluous neurons   without a class, whose part of the logits' gradient is exactly 0

Prints the share of each, a mean over the steps of one block's training, and the time of
the products with and without as many rows or columns, the two in turns: what is saved
at best, for gathering what stays, and putting it back, is not counted.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from math import prod

import numpy as np
import torch

from harness.actors import Job
from harness.commandline import compose_command_line, from_hydra
from harness.datasets import Dataset, load_dataset
from supsup_core.block import BlockInputs, backpropagate, layer_form
from supsup_core.methods import METHODS
from supsup_core.networks import fixed_signs
from supsup_core.training import initial_scores, task_batches

BLOCK = 8
CPU = torch.device("cpu")


def shares(job: Job, data: Dataset) -> dict[str, float]:
    """Means over the steps of one block, counted as train_block trains it."""
    tasks, recipe, seed = [job.task(i) for i in range(BLOCK)], job.recipe, job.config.seed
    method, network = METHODS[job.config.method], job.network
    inputs = BlockInputs(tasks, data.train, torch.bfloat16, CPU)
    layers = []
    for i, layer in enumerate(network.layers):
        scores = np.stack([initial_scores(network, method, t.task_id, seed)[i] for t in tasks])
        signs = np.broadcast_to(fixed_signs(layer, seed, i), scores.shape)
        if i == 0:
            scores, signs = inputs.to_columns(scores), inputs.to_columns(signs)
        form = layer_form(method, CPU)
        layers.append(form(scores, signs, method, recipe.make_optimizer(), torch.bfloat16, CPU))
    scale = prod(layer.constant for layer in network.layers) / recipe.temperature
    order = task_batches(tasks, data.train, recipe, seed)
    found: dict[str, list[float]] = {}
    for step in range(recipe.steps):
        x, labels = inputs.at(next(order))
        found.setdefault("constant pixels", []).append(_mean(x.amax(1) == x.amin(1)))
        passed = backpropagate([layer.masked for layer in layers], x, labels, scale)
        for i, delta, received in passed:
            if i == len(layers) - 1:
                idle = (delta[:, job.num_classes :] == 0).all(dim=2)
                found.setdefault("superfluous neurons", []).append(_mean(idle))
            if i:
                dead = (received == 0).all(dim=2)
                found.setdefault(f"dead units of layer {i}", []).append(_mean(dead))
            layers[i].learn(delta, received, recipe.learning_rate_at(step))
    return {name: statistics.mean(values) for name, values in found.items()}


def _mean(flags: torch.Tensor) -> float:
    return float(flags.double().mean())


def products(widths: tuple[int, ...], num_images: int) -> Callable[[], None]:
    """All matrix products of a step and block, on a network of these widths."""
    sizes = list(pairwise(widths))
    x = [torch.randn(BLOCK, width, num_images).bfloat16() for width in widths]
    w = [torch.randn(BLOCK, o, i).bfloat16() for i, o in sizes]

    def step() -> None:
        torch.mm(w[0].flatten(0, 1), x[0][0])
        for delta in x[1]:
            torch.mm(delta, x[0][0].t())
        for i in range(1, len(w)):
            torch.bmm(w[i], x[i])
            torch.bmm(x[i + 1], x[i].transpose(1, 2))
            torch.bmm(w[i].transpose(1, 2), x[i + 1])

    return step


def compare(whole: Callable[[], None], part: Callable[[], None], rounds: int) -> tuple[float, ...]:
    """Median milliseconds a step and task of both, in turns."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 3):
        for form, kept in zip((whole, part), seconds, strict=True):
            began = time.perf_counter()
            form()
            if turn >= 3:  # the first ones warm up
                kept.append(time.perf_counter() - began)
    return tuple(statistics.median(kept) / BLOCK * 1e3 for kept in seconds)


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--recipe", default="paper")
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset(arguments.data)
    composed = compose_command_line([f"data={arguments.data}", f"train={arguments.recipe}"])
    assert composed is not None
    job = Job(from_hydra(composed), data.side, data.num_classes)
    widths = job.network.widths
    whole = products(widths, job.recipe.batch_size)
    print("                        share   products: all / without them, ms a step and task")
    for name, share in shares(job, data).items():
        layer = 0 if "pixels" in name else len(widths) - 1
        if name.startswith("dead"):
            layer = int(name.split()[-1])
        left = list(widths)
        left[layer] -= round(share * left[layer])
        part = products(tuple(left), job.recipe.batch_size)
        before, after = compare(whole, part, arguments.rounds)
        print(f"{name:22} {share:6.1%}   {before:.3f} / {after:.3f}")


if __name__ == "__main__":
    main()
