"""The parts of gpu.py that measure inference and recall."""

import os
import time
from functools import partial
from itertools import product

import numpy as np
import torch
from gpu_bench import H100_BYTES, H100_FLOPS, NUM_CLASSES, Bench, Reported

from supsup_core.bits.infer import BitInference
from supsup_core.data import normalise
from supsup_core.engines.choose import engine_for, states_for
from supsup_core.engines.protocol import Engine
from supsup_core.inference.algorithms import Options
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.methods.protocol import layout_of
from supsup_core.methods.threshold import Threshold
from supsup_core.reservoirs.blocks import Blocks
from supsup_core.reservoirs.quadratic import Projection
from supsup_core.reservoirs.stacked import StackedBlocks
from supsup_core.states.layout import StateLayout
from supsup_core.states.resident_storage import storage_bytes


def engine_of(bench: Bench) -> tuple[Engine, np.ndarray]:
    """Make the engine of the device. Return it, and the packed rows of its masks."""
    layout = layout_of(bench.network, Threshold())
    rows = random_rows(layout, bench.options.masks) if bench.rows is None else bench.rows
    weights = {n: w.to(bench.device) for n, w in bench.network.weights(0).items()}
    states = states_for(bench.network, layout, rows, bench.device)
    return engine_for(bench.network, weights, states, NUM_CLASSES), rows


def infer(bench: Bench) -> None:
    """Measure the inference of queries among many masks."""
    options, layout = bench.options, layout_of(bench.network, Threshold())
    weights = bench.network.weights(0)
    engine, rows = engine_of(bench)
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
                **_floor(rows, min(num, options.together), algorithm, seconds / num),
                task_accuracy=float((answers == owners[:num]).mean()),
                same_as_cpu=sum(same),
                compared=len(same),
                peak_bytes=peak,
            )


def _floor(rows: np.ndarray, together: int, algorithm: str, seconds: float) -> dict[str, float]:
    """Compute the lower bound of the seconds of a query; an empty result if there is no bound.

    One-shot inference reads all packed masks once for each batch. It multiplies each bit with two
    numbers in bfloat16.

    Args:
        rows: the packed masks.
        together: number of queries of a batch.
        algorithm: name of the algorithm.
        seconds: the measured seconds of a query.
    """
    if algorithm not in ("one_shot", "one_shot_ranked"):
        return {}
    reading = rows.nbytes / H100_BYTES / together
    floor = max(reading, 2 * 2 * 8 * rows.nbytes / H100_FLOPS if together > 1 else 0.0)
    return {"floor_seconds": floor, "share_of_floor": floor / seconds}


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
    dim, patterns = bench.options.dim, bench.options.patterns
    block = min(1024, dim)
    floor = 4 * dim * block / H100_BYTES / patterns  # to read all weights once
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
            floor_seconds=floor,
            share_of_floor=floor * patterns / field,
            bytes=kept.num_bytes,
            peak_bytes=bench.peak(),
        )


def memory_of_inference(bench: Bench) -> None:
    """Measure the largest memory of inference."""
    options = bench.options
    bench.reset_peak()
    engine, rows = engine_of(bench)
    kept = bench.peak()
    shown, _ = queries_of_tasks(bench, max(options.queries))
    for algorithm, num in product(options.algorithms, options.queries):
        with Reported(bench, "memory", of="inference", algorithm=algorithm, queries=num):
            engine.infer(shown[:num], algorithm, OBJECTIVES["H"], Options())
            bench.print(
                "memory",
                of="inference",
                algorithm=algorithm,
                masks=len(rows),
                row_bytes=rows.nbytes,
                computed_bytes=storage_bytes(rows.shape[1], len(rows)),
                kept_bytes=kept,
                queries=num,
                peak_bytes=bench.peak(),
            )
