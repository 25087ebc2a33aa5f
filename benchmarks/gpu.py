"""Measure how fast one GPU trains, infers and recalls, and the speeds that limit it.

    python benchmarks/gpu.py ceilings train infer reservoir memory --device cuda
    python benchmarks/gpu.py actors --device cuda --actors 1 2 4

Each part prints JSON objects, one per line. `share_of_floor` is the lower bound of a time, divided
by the time.

    ceilings   speed of memory, of matrix products, of copies to the device, and of launches
    check      differences of masks: blocks that train together or alone, Triton or torch
    train      time per training step and tasks per second, for each form of the trainer
    whole      time to train, pack and measure --masks tasks by the whole recipe
    actors     tasks per second of several processes on one device
    infer      time per query among many masks, and how many answers equal the CPU's answers
    reservoir  time to store masks and to recall them
    memory     largest memory that training and inference took

The program needs only supsup_core, torch, numpy, numba and jaxtyping, so that it runs on a machine
where Ray is not installed. --data names an .npz file with the arrays train_images, train_labels,
test_images and test_labels; without it, the images are random shapes of ten classes.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

try:
    from commandline import Parser, file, run_program
    from commandline import whole as number
except ModuleNotFoundError:  # without the packages of harness/, limits are not checked
    Parser, file = argparse.ArgumentParser, Path  # type: ignore[misc,assignment]

    def number(at_least: int = 1) -> Callable[[str], int]:  # type: ignore[misc]
        """Return the function that parses a whole number."""
        return int

    def run_program(main: Callable[[], None]) -> None:  # type: ignore[misc]
        """Run the program."""
        main()


from supsup_core.bits.infer import BitInference
from supsup_core.data import ImageSet, normalise
from supsup_core.engines.choose import engine_for, states_for
from supsup_core.engines.protocol import Engine
from supsup_core.inference.algorithms import Options
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.names import INFERENCE_ALGORITHMS
from supsup_core.networks.mlp import MLP
from supsup_core.reservoirs.blocks import Blocks
from supsup_core.reservoirs.quadratic import Projection
from supsup_core.reservoirs.stacked import StackedBlocks
from supsup_core.states.layout import StateLayout, TaskState
from supsup_core.tasks.permuted import Permuted
from supsup_core.tasks.protocol import Setting, Task
from supsup_core.training.choose import trainer_for
from supsup_core.training.protocol import OnStep
from supsup_core.training.recipe import Recipe
from supsup_core.training.resident_steps import PlainSteps

WIDTHS = (784, 300, 100, 500)
NUM_CLASSES = 10
RECIPES = {
    "paper": Recipe(1000, 128, 1e-4),
    "fast": Recipe(128, 384, 2.1e-3, smoothing=0.2, decay="linear", temperature=1.33),
}
TYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class Bench:
    """The options, the device, and the network and images that all parts use.

    Args:
        options: the parsed command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.network = MLP("mlp", tuple(options.widths))
        self.train, self.test = images(options.data)
        self.rows: np.ndarray | None = None

    def wait(self) -> None:
        """Wait until the device has finished its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def print(self, part: str, **figures: Any) -> None:
        """Print one JSON object: the part and its figures."""
        print(json.dumps({"part": part, **figures}), flush=True)

    def seconds(self, work: Callable[[], Any], at_least: float = 0.3, rounds: int = 5) -> float:
        """Measure the seconds of one call: the median over rounds, after a call that warms up."""
        work()
        self.wait()
        once = time.perf_counter()
        work()
        self.wait()
        calls = max(1, int(at_least / rounds / max(1e-6, time.perf_counter() - once)))
        found = []
        for _ in range(rounds):
            start = time.perf_counter()
            for _ in range(calls):
                work()
            self.wait()
            found.append((time.perf_counter() - start) / calls)
        return statistics.median(found)

    def peak(self) -> int:
        """Return the peak bytes of the device since the last call of `reset_peak`."""
        return torch.cuda.max_memory_allocated() if self.device.type == "cuda" else 0

    def reset_peak(self) -> None:
        """Forget the peak memory."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def tasks(self, first: int, count: int) -> list[Task]:
        """Make permuted tasks with the numbers first, first + 1, ..."""
        setting = Setting(0, 10**6, (28, 28), NUM_CLASSES)
        return [Permuted().make(i, setting) for i in range(first, first + count)]


def images(path: Path | None) -> tuple[ImageSet, ImageSet]:
    """Read images from an .npz file, or make random shapes of ten classes."""
    if path is not None:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
    else:
        generator = np.random.default_rng(0)
        shapes = generator.random((NUM_CLASSES, 784)) < 0.2
        arrays = {}
        for name, count in (("train", 60_000), ("test", 10_000)):
            labels = generator.integers(0, NUM_CLASSES, count).astype(np.uint8)
            shown = shapes[labels] & (generator.random((count, 784), dtype=np.float32) < 0.7)
            grey = generator.integers(64, 256, (count, 784), dtype=np.uint8)
            arrays |= {f"{name}_images": shown * grey, f"{name}_labels": labels}
    pixels = arrays["train_images"] / np.float32(255)
    mean, std = (float(pixels.mean(dtype=np.float64)),), (float(pixels.std(dtype=np.float64)),)
    return tuple(  # type: ignore[return-value]
        ImageSet(arrays[f"{name}_images"].reshape(-1, 784), arrays[f"{name}_labels"], mean, std)
        for name in ("train", "test")
    )


def ceilings(bench: Bench) -> None:
    """Measure the speeds that limit everything else."""
    device, on_gpu = bench.device, bench.device.type == "cuda"
    values = torch.randint(0, 255, (2**30 if on_gpu else 2**26,), dtype=torch.uint8, device=device)
    other = torch.empty_like(values)
    seconds = bench.seconds(lambda: other.copy_(values))
    size = 8192 if on_gpu else 1024
    a, b = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    multiplied = bench.seconds(lambda: a @ b)
    few = torch.zeros(8, device=device)
    launch = bench.seconds(lambda: [few.add_(1) for _ in range(100)]) / 100
    host = torch.empty(2**26, dtype=torch.uint8, pin_memory=on_gpu)
    across = bench.seconds(lambda: values[: len(host)].copy_(host, non_blocking=True))
    bench.print(
        "ceilings",
        memory_bytes_per_second=2 * len(values) / seconds,
        bfloat16_flops=2 * size**3 / multiplied,
        launch_seconds=launch,
        host_bytes_per_second=len(host) / across,
    )


def training_floor(
    widths: Sequence[int], recipe: Recipe, bytes_per_second: float = 3.0e12
) -> dict[str, float]:
    """Compute how many bytes a step of a task must read and write at least, and the time for this.

    Scores and means of squares are read and written once as float32, and masks once as bits. Each
    activation is read or written five times as bfloat16.
    """
    weights = sum(i * o for i, o in pairwise(widths))
    activations = 2 * 5 * sum(widths[1:]) * recipe.batch_size
    floor = 16 * weights + weights / 4 + activations
    return {"floor_bytes": floor, "floor_seconds": floor / bytes_per_second}


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
    warm = steps // 3

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
        share_of_floor=floor["floor_seconds"] / (step / num_tasks),
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
            dtype=name,
            parts=type(trainer.parts).__name__,
            bits_that_differ_alone=int(
                np.bitwise_count(rows["triton"] ^ np.concatenate(alone)).sum()
            ),
            share_of_bits_that_differ_from_torch=float(differ / len(tasks) / layout.num_bits),
        )
    bench.options.dtype = given


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
        seconds = [results.get(timeout=300) for _ in others]
        for other in others:
            other.join()
        done = num * bench.options.tasks[0] * bench.options.steps
        bench.print(
            "actors",
            actors=num,
            form=bench.options.forms[0],
            tasks=bench.options.tasks[0],
            recipe=bench.options.recipes[0],
            task_steps_per_second=done / max(seconds),
        )


def infer(bench: Bench) -> None:
    """Measure the inference of queries among many masks."""
    options, layout = bench.options, layout_of(bench.network, Threshold())
    rows = random_rows(layout, options.masks) if bench.rows is None else bench.rows
    weights = bench.network.weights(0)
    on_device = {n: w.to(bench.device) for n, w in weights.items()}
    states = states_for(bench.network, layout, rows, bench.device)
    engine = engine_for(bench.network, on_device, states, NUM_CLASSES)
    cpu = BitInference(list(weights.values()), layout, rows, NUM_CLASSES, os.cpu_count() or 1)
    shown, owners = queries_of_tasks(bench, max(options.queries))
    for algorithm, objective, num in product(options.algorithms, "HG", options.queries):
        with Reported(bench, "infer", algorithm=algorithm, queries=num):
            bench.reset_peak()
            answers, seconds = _asked(bench, engine, shown[:num], algorithm, objective)
            peak = bench.peak()
            same = _same_as_cpu(cpu, shown[: options.compared], answers, algorithm, objective)
            bench.print(
                "infer",
                engine=type(engine).__name__,
                algorithm=algorithm,
                objective=objective,
                masks=options.masks,
                queries=num,
                seconds_per_query=seconds / num,
                task_accuracy=float((answers == owners[:num]).mean()),
                same_as_cpu=sum(same),
                compared=len(same),
                peak_bytes=peak,
            )


def random_rows(layout: StateLayout, num_masks: int) -> np.ndarray:
    """Draw packed masks that keep half of the weights."""
    generator = np.random.default_rng(1)
    rows = np.zeros((num_masks, layout.row_bytes), np.uint8)
    for plane in layout.planes:
        part = slice(plane.byte_offset, plane.byte_offset + plane.num_bits // 8)
        rows[:, part] = generator.integers(0, 256, rows[:, part].shape, dtype=np.uint8)
    return rows


def queries_of_tasks(bench: Bench, num: int) -> tuple[torch.Tensor, np.ndarray]:
    """Make queries of one image each. Return the queries' images and the numbers of their tasks."""
    owners = np.arange(num) * 7919 % bench.options.masks
    tasks = {int(i): bench.tasks(int(i), 1)[0] for i in np.unique(owners)}
    flat = bench.test.flat
    pixels = np.stack(
        [tasks[int(owner)].images(flat[q % len(flat), None])[0] for q, owner in enumerate(owners)]
    )
    on_device = torch.from_numpy(pixels).to(bench.device)
    return normalise(on_device, bench.test.mean, bench.test.std)[:, None], owners


def _asked(
    bench: Bench, engine: Engine, queries: torch.Tensor, algorithm: str, objective: str
) -> tuple[np.ndarray, float]:
    """Infer the tasks of queries in batches; return the tasks, and the seconds of all queries."""
    found: list[torch.Tensor] = []

    def ask() -> None:
        found[:] = [
            engine.infer(part, algorithm, OBJECTIVES[objective], Options()).tasks
            for part in queries.split(bench.options.together)
        ]

    seconds = bench.seconds(ask, rounds=3)
    return torch.cat(found).cpu().numpy(), seconds


def _same_as_cpu(
    cpu: BitInference, shown: torch.Tensor, answers: np.ndarray, algorithm: str, objective: str
) -> list[bool]:
    """Return, for the first answers, whether the CPU gives the same answer.

    If the CPU has no form of the algorithm on bits, return an empty list.
    """
    on_bits = getattr(cpu, algorithm.removesuffix("_ranked"), None)
    if on_bits is None:
        return []
    some = shown[: len(answers)].cpu().split(64) if len(shown) else ()
    tasks = [task for part in some for task in on_bits(part, OBJECTIVES[objective]).tasks.tolist()]
    return [bool(task == answer) for task, answer in zip(tasks, answers, strict=False)]


def reservoir(bench: Bench) -> None:
    """Measure a reservoir of blocks: storing patterns, and one update of all units."""
    dim, block, patterns = 315_200, 1024, bench.options.patterns
    generator = torch.Generator().manual_seed(0)
    states = (torch.rand(patterns, dim, generator=generator) < 0.5).float() * 2 - 1
    states = states.to(bench.device)
    for form, make in (
        ("parts", lambda: Blocks(dim, block, lambda size: Projection(size, bench.device))),
        ("stacked", lambda: StackedBlocks(dim, block, Projection, bench.device)),
    ):
        bench.reset_peak()
        kept = make()
        kept.store(states[0])
        bench.wait()
        start = time.perf_counter()
        if isinstance(kept, StackedBlocks):
            kept.store_all(states[1:])
        else:
            for state in states[1:]:
                kept.store(state)
        bench.wait()
        stored = (time.perf_counter() - start) / max(1, patterns - 1)
        field = bench.seconds(partial(kept.field, states))
        bench.print(
            "reservoir",
            form=form,
            dim=dim,
            block=block,
            patterns=patterns,
            store_seconds=stored,
            field_seconds_per_state=field / patterns,
            bytes=kept.num_bytes,
            peak_bytes=bench.peak(),
        )


class Reported:
    """A context that prints an error in its `with` block as a line, so that the program goes on."""

    def __init__(self, bench: Bench, part: str, **case: Any) -> None:
        self._bench, self._part, self._case = bench, part, case

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if not isinstance(error, Exception):
            return False
        text = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        self._bench.print(self._part, **self._case, error=text)
        return True


PARTS = {
    "ceilings": ceilings,
    "check": check,
    "train": train,
    "whole": whole,
    "actors": actors,
    "infer": infer,
    "reservoir": reservoir,
}


def main() -> None:
    """Read the options and measure each part."""
    parser = Parser(__doc__)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=default)
    parser.add_argument("--data", type=file)
    parser.add_argument("--widths", nargs="+", type=number(), default=list(WIDTHS))
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=["paper"])
    parser.add_argument("--forms", nargs="+", choices=["triton", "torch"], default=["triton"])
    parser.add_argument("--tasks", nargs="+", type=number(), default=[8], help="side by side")
    parser.add_argument("--block", type=number(), default=8, help="tasks that share their batches")
    parser.add_argument("--steps", type=number(3), default=60)
    parser.add_argument("--dtype", choices=TYPES, default="bfloat16")
    parser.add_argument("--actors", nargs="+", type=number(), default=[1], help="processes")
    parser.add_argument("--masks", type=number(), default=2500)
    parser.add_argument("--queries", nargs="+", type=number(), default=[1, 32])
    parser.add_argument("--together", type=number(), default=512, help="queries of one batch")
    parser.add_argument(
        "--compared", type=number(0), default=8, help="answers compared with the CPU"
    )
    parser.add_argument(
        "--algorithms", nargs="+", choices=INFERENCE_ALGORITHMS, default=["one_shot"]
    )
    parser.add_argument("--patterns", type=number(2), default=20, help="of the reservoir")
    bench = Bench(parser.parse_args())
    name = bench.options.device
    if bench.device.type == "cuda":
        name = torch.cuda.get_device_name()
    bench.print("machine", device=name, torch=torch.__version__, python=platform.python_version())
    for part in bench.options.parts:
        PARTS[part](bench)


if __name__ == "__main__":
    run_program(main)
