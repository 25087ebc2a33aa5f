"""The part of gpu.py that compares blocks that train together with blocks that train alone."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from gpu_bench import Bench
from gpu_training import RECIPES, TYPES, make_trainer, trained

from supsup_core.data import ImageSet
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.networks.conv import small_conv
from supsup_core.networks.module import as_network
from supsup_core.networks.units import UnitMLP
from supsup_core.tasks.protocol import Task
from supsup_core.training.choose import trainer_for
from supsup_core.training.resident import ResidentTrainer

SHAPE = (1, 28, 28)


def check(bench: Bench) -> None:
    """Compare masks of blocks side by side with masks of blocks alone, and Triton with torch."""
    recipe, layout = (
        replace(RECIPES["fast"], steps=bench.options.steps),
        layout_of(bench.network, Threshold()),
    )
    size = bench.options.block
    tasks, given = bench.tasks(0, 5 * size), bench.options.dtype
    for name in TYPES:
        bench.options.dtype = name
        rows = {
            form: layout.pack(trained(bench, make_trainer(bench, recipe, form), tasks))
            for form in ("triton", "torch")
        }
        trainer = make_trainer(bench, recipe, "triton")
        alone = [
            layout.pack(trained(bench, trainer, tasks[i : i + size]))
            for i in range(0, len(tasks), size)
        ]
        differ = np.bitwise_count(rows["triton"] ^ rows["torch"]).sum()
        bench.print(
            "check",
            network=bench.network.name,
            dtype=name,
            parts=type(trainer.parts).__name__ if isinstance(trainer, ResidentTrainer) else None,
            bits_that_differ_alone=int(
                np.bitwise_count(rows["triton"] ^ np.concatenate(alone)).sum()
            ),
            share_of_bits_that_differ_from_torch=float(differ / len(tasks) / layout.num_bits),
        )
    bench.options.dtype = given
    _check_networks(bench, tasks)


def _check_networks(bench: Bench, tasks: Sequence[Task]) -> None:
    """Compare blocks of masks over units, and blocks of a convolutional network."""
    recipe = replace(RECIPES["fast"], steps=bench.options.steps, batch_size=64)
    networks = (
        UnitMLP("units", (784, 256, 10), SHAPE),
        as_network("conv", small_conv(SHAPE, 10, channels=(4, 8)), SHAPE),
    )
    train, test = (
        ImageSet(part.images.reshape(-1, *SHAPE), part.labels, part.mean, part.std)
        for part in (bench.train, bench.test)
    )
    for network in networks:
        layout = layout_of(network, Threshold())
        given = network, Threshold(), train, test, recipe
        trainer = trainer_for(*given, seed=0, device=bench.device)
        size = bench.options.block
        blocks = [tasks[i : i + size] for i in range(0, len(tasks), size)]
        together = layout.pack(trainer.side_by_side(blocks))
        alone = [layout.pack(trainer.side_by_side([block])) for block in blocks]
        bench.print(
            "check",
            network=network.name,
            dtype="float32",
            trainer=type(trainer).__name__,
            bits_that_differ_alone=int(np.bitwise_count(together ^ np.concatenate(alone)).sum()),
        )
