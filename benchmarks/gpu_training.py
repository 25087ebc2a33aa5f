"""The parts of gpu.py that measure training."""

import argparse
import multiprocessing
import queue
import statistics
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from gpu_bench import H100_BYTES, Bench, Reported

from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training.choose import trainer_for
from supsup_core.training.protocol import OnStep
from supsup_core.training.recipe import Recipe
from supsup_core.training.resident import ResidentTrainer
from supsup_core.training.resident_memory import training_memory
from supsup_core.training.resident_steps import PlainSteps

RECIPES = {
    "paper": Recipe(1000, 128, 1e-4),
    "fast": Recipe(128, 384, 2.1e-3, smoothing=0.2, decay="linear", temperature=1.33),
}
GIGABYTES = (16, 24, 80)  # memory of a T4, of an L4 and of an H100
TYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def training_floor(widths: Sequence[int], recipe: Recipe) -> float:
    """Compute the least seconds of a step of a task: the time to read and write the needed bytes.

    Scores and means of squares are read and written once as float32, and masks once as bits. Each
    activation is read or written five times as bfloat16.
    """
    weights = sum(i * o for i, o in pairwise(widths))
    activations = 2 * 5 * sum(widths[1:]) * recipe.batch_size
    return (16 * weights + weights / 4 + activations) / H100_BYTES


def train(bench: Bench) -> None:
    """Measure training steps of blocks of several sizes."""
    for name in bench.options.recipes:
        for num_tasks in bench.options.tasks:
            for form in bench.options.forms:
                with Reported(bench, "train", form=form, tasks=num_tasks, recipe=name):
                    _train(bench, name, num_tasks, form)


def _train(bench: Bench, name: str, num_tasks: int, form: str) -> None:
    recipe, steps = RECIPES[name], bench.options.steps
    trainer = make_trainer(bench, replace(recipe, steps=steps), form)
    tasks = bench.tasks(0, num_tasks)
    marks: list[float] = []
    warm = max(2, steps // 3)

    def on_step(done: int) -> None:
        if done in (1, warm, steps):
            bench.wait()
            marks.append(time.perf_counter())

    for _ in range(2):  # the first time compiles
        marks.clear()
        bench.wait()
        bench.reset_peak()
        start = time.perf_counter()
        states = trained(bench, trainer, tasks, on_step)
        ended = time.perf_counter()
        few = slice(0, min(num_tasks, 64))
        measured = trainer.measure_each(tasks[few], states[few])
        seconds_measured = (time.perf_counter() - ended) / len(measured)
    step = (marks[2] - marks[1]) / (steps - warm)
    around = (marks[0] - start - step + ended - marks[2]) / num_tasks
    floor = training_floor(bench.network.widths, recipe)
    bench.print(
        "train",
        form=form,
        recipe=name,
        widths=bench.network.widths,
        dtype=bench.options.dtype,
        tasks=num_tasks,
        step_seconds=step,
        step_seconds_per_task=step / num_tasks,
        floor_seconds=floor,
        share_of_floor=floor / (step / num_tasks),
        begin_and_end_seconds_per_task=around,
        measure_seconds_per_task=seconds_measured,
        tasks_per_second=1 / (recipe.steps * step / num_tasks + around + seconds_measured),
        accuracy_after_steps=statistics.mean(one.accuracy for one in measured),
        steps=steps,
        peak_bytes=bench.peak(),
    )


def trained(
    bench: Bench, trainer: Any, tasks: Sequence[Task], on_step: OnStep | None = None
) -> list[TaskState]:
    """Train tasks to the end in blocks of --block tasks, side by side."""
    size = bench.options.block
    blocks = [tasks[i : i + size] for i in range(0, len(tasks), size)]
    states: list[TaskState] = trainer.side_by_side(blocks, on_step)
    return states


def whole(bench: Bench) -> None:
    """Train --masks tasks by the whole recipe, and measure them; keep the rows for `infer`."""
    for name in bench.options.recipes:
        trainer = make_trainer(bench, RECIPES[name], bench.options.forms[0])
        num, together = bench.options.masks, bench.options.tasks[-1]
        brief = make_trainer(bench, replace(RECIPES[name], steps=2), bench.options.forms[0])
        brief.measure_each(*[(t := bench.tasks(0, together)), trained(bench, brief, t)])  # compiles
        del brief
        bench.reset_peak()
        parts = {"train": 0.0, "measure": 0.0}
        accuracies: list[float] = []
        rows = []
        layout = layout_of(bench.network, Threshold())
        start = time.perf_counter()
        for first in range(0, num, together):
            tasks = bench.tasks(first, min(together, num - first))
            began = time.perf_counter()
            states = trained(bench, trainer, tasks)
            rows.append(layout.pack(states))
            middle = time.perf_counter()
            accuracies += [one.accuracy for one in trainer.measure_each(tasks, states)]
            parts["train"] += middle - began
            parts["measure"] += time.perf_counter() - middle
        seconds = time.perf_counter() - start
        bench.rows = np.concatenate(rows)
        bench.print(
            "whole",
            recipe=name,
            tasks=num,
            side_by_side=together,
            seconds=seconds,
            tasks_per_second=num / seconds,
            seconds_of_parts=parts,
            accuracy=statistics.mean(accuracies),
            lowest_accuracy=min(accuracies),
            crc32=zlib.crc32(bench.rows.tobytes()),
            peak_bytes=bench.peak(),
        )


def make_trainer(bench: Bench, recipe: Recipe, form: str) -> Any:
    """Make the trainer of a form."""
    trainer = trainer_for(
        bench.network,
        Threshold(),
        bench.train,
        bench.test,
        recipe,
        seed=0,
        dtype=TYPES[bench.options.dtype],
        device=bench.device,
    )
    if isinstance(trainer, ResidentTrainer):
        trainer.graphs = not bench.options.no_graphs
        if form == "torch":
            trainer.parts = PlainSteps()
    return trainer


def _actor(options: argparse.Namespace, name: str, barrier: Any, results: Any) -> None:
    torch.set_num_threads(1)
    bench = Bench(options)
    trainer = make_trainer(bench, replace(RECIPES[name], steps=options.steps), options.forms[0])
    tasks = bench.tasks(0, options.tasks[0])
    trainer.measure_each(tasks, trained(bench, trainer, tasks))  # compiles
    barrier.wait()
    start = time.perf_counter()
    trainer.measure_each(tasks, trained(bench, trainer, tasks))
    results.put(time.perf_counter() - start)


def actors(bench: Bench) -> None:
    """Measure several processes that train on one device at the same time."""
    context = multiprocessing.get_context("spawn")
    for num in bench.options.actors:
        barrier, results = context.Barrier(num), context.Queue()
        others = [
            context.Process(
                target=_actor, args=(bench.options, bench.options.recipes[0], barrier, results)
            )
            for _ in range(num)
        ]
        for other in others:
            other.start()
        seconds = seconds_of(others, results)
        for other in others:
            other.join()
        done = num * bench.options.tasks[0] * bench.options.steps
        floor = training_floor(bench.options.widths, RECIPES[bench.options.recipes[0]])
        bench.print(
            "actors",
            actors=num,
            form=bench.options.forms[0],
            tasks=bench.options.tasks[0],
            recipe=bench.options.recipes[0],
            task_steps_per_second=done / max(seconds),
            floor_seconds=floor,
            share_of_floor=floor * done / max(seconds),
        )


def seconds_of(processes: Sequence[Any], results: Any) -> list[float]:
    """Wait until each process has put its seconds into the queue `results`.

    Raises:
        RuntimeError: a process failed. The others, which may wait for it, are ended.
    """
    found: list[float] = []
    while len(found) < len(processes):
        try:
            found.append(results.get(timeout=1))
        except queue.Empty:
            if failed := sum(bool(process.exitcode) for process in processes):
                for process in processes:
                    process.kill()
                raise RuntimeError(
                    f"{failed} of {len(processes)} processes failed: see the lines above"
                ) from None
    return found


def memory_of_training(bench: Bench) -> None:
    """Compute the memory of training for some sizes of GPUs, and measure it."""
    options = bench.options
    for name in options.recipes:
        recipe, block = RECIPES[name], bench.tasks(0, options.block)
        given = bench.network, Threshold(), recipe, TYPES[options.dtype]
        computed = training_memory(*given, _planned_parts(), block, recipe.batch_size)
        for gigabytes in GIGABYTES:
            blocks = computed.most_blocks(gigabytes * 10**9)
            bench.print(
                "memory",
                of="plan",
                recipe=name,
                gigabytes=gigabytes,
                most_tasks=blocks * options.block,
                computed_bytes=computed.needed(blocks),
            )
        trainer = make_trainer(bench, replace(recipe, steps=3), options.forms[0])
        for num_tasks in options.tasks:
            with Reported(bench, "memory", of="training", recipe=name, tasks=num_tasks):
                tasks = bench.tasks(0, num_tasks)
                bench.reset_peak()
                states = trained(bench, trainer, tasks)
                peak = bench.peak()
                trainer.measure_each(tasks, states)
                bench.print(
                    "memory",
                    of="training",
                    recipe=name,
                    tasks=num_tasks,
                    computed_bytes=computed.needed(-(-num_tasks // options.block)),
                    peak_bytes=peak,
                    peak_bytes_with_measuring=bench.peak(),
                )
        del trainer


def _planned_parts() -> PlainSteps:
    """Return the parts of a training step that a GPU uses."""
    if find_spec("triton") is None:
        return PlainSteps()
    from supsup_core.training.triton_steps import TritonSteps

    return TritonSteps()
