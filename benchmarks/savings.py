"""Measure how much arithmetic a training step could skip without changing its result.

    python benchmarks/savings.py --recipe paper

constant pixels       pixels with the same value in every image of the batch (one column of the
                      first layer's products gives the columns of all these pixels)
dead units            hidden units that are 0 for every image of the batch (they have no gradient)
superfluous neurons   outputs without a class whose logits have a gradient of exactly 0

The program prints the share of each kind, as a mean over the steps of one block's training. It
then times the matrix products of a step, and the same products without this share of rows or
columns, in turns. The difference is the most that can be saved: the time to gather the remaining
rows, and to put the results back, is not counted.
"""

import statistics
import time
from dataclasses import replace

import torch
from commandline import Parser, run_program, whole
from jobs import compose, resolved_job

from harness.data.catalogue import load_dataset
from harness.data.dataset import Dataset
from harness.data.names import DATASETS
from harness.run.spec import RunSpec
from harness.workers.training import trainer_of
from supsup_core.networks.mlp import MLP
from supsup_core.training.batches import task_batches
from supsup_core.training.blocks import MLPTrainer, logit_constant
from supsup_core.training.inputs import BlockInputs
from supsup_core.training.layers import layer_gradients
from supsup_core.training.products import Product, step_products

BLOCK = 8
CPU = torch.device("cpu")


def shares(spec: RunSpec, data: Dataset) -> dict[str, float]:
    """Train one block as MLPTrainer does. Map each kind to its mean share over the steps."""
    tasks, recipe, seed = [spec.task(i) for i in range(BLOCK)], spec.recipe, spec.config.seed
    inputs = BlockInputs(tasks, data.train, torch.bfloat16, CPU)
    # Always in bfloat16 and on the CPU, whatever type and device the run itself would use.
    config = replace(spec.config, train=replace(spec.config.train, dtype="bfloat16"))
    trainer = trainer_of(replace(spec, config=config), data.train, data.test, CPU)
    assert isinstance(trainer, MLPTrainer)
    assert isinstance(spec.network, MLP)
    layers = trainer.begin(tasks, inputs)
    constant = logit_constant(spec.network, recipe)
    order = task_batches(tasks, data.train, recipe, seed)
    found: dict[str, list[float]] = {}
    for step in range(recipe.steps):
        x, labels = inputs.at(next(order))
        found.setdefault("constant pixels", []).append(_mean(x.amax(1) == x.amin(1)))
        for i, delta, received in layer_gradients(layers, x, labels, constant):
            if i == len(layers) - 1:
                idle = (delta[:, spec.num_classes :] == 0).all(dim=2)
                found.setdefault("superfluous neurons", []).append(_mean(idle))
            if i:
                dead = (received == 0).all(dim=2)
                found.setdefault(f"dead units of layer {i}", []).append(_mean(dead))
            layers[i].learn(delta, received, recipe.learning_rate_at(step))
    return {name: statistics.mean(values) for name, values in found.items()}


def _mean(flags: torch.Tensor) -> float:
    return float(flags.double().mean())


def compare(whole: list[Product], part: list[Product], rounds: int) -> tuple[float, ...]:
    """Time both forms in turns; return the median milliseconds per step and task of each form."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 3):
        for form, kept in zip((whole, part), seconds, strict=True):
            began = time.perf_counter()
            for product in form:
                product.compute()
            if turn >= 3:  # the first three turns warm up
                kept.append(time.perf_counter() - began)
    return tuple(statistics.median(kept) / BLOCK * 1e3 for kept in seconds)


def main() -> None:
    """Read the options, measure and print."""
    parser = Parser(__doc__)
    parser.add_argument("--data", choices=DATASETS, default="mnist")
    parser.add_argument("--recipe", default="paper")
    parser.add_argument("--rounds", type=whole(), default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset(arguments.data)
    spec = resolved_job(compose([f"data={arguments.data}", f"train={arguments.recipe}"]), data)
    assert isinstance(spec.network, MLP)
    widths = spec.network.widths
    full = step_products(widths, BLOCK, spec.recipe.batch_size, torch.bfloat16)
    print("                        share   products: all / reduced, ms per step and task")
    for name, share in shares(spec, data).items():
        layer = 0 if "pixels" in name else len(widths) - 1
        if name.startswith("dead"):
            layer = int(name.split()[-1])
        left = list(widths)
        left[layer] -= round(share * left[layer])
        part = step_products(left, BLOCK, spec.recipe.batch_size, torch.bfloat16)
        before, after = compare(full, part, arguments.rounds)
        print(f"{name:22} {share:6.1%}   {before:.3f} / {after:.3f}")


if __name__ == "__main__":
    run_program(main)
