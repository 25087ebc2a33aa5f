"""The options, the device, the network and the images that all parts of gpu.py use."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from supsup_core.data import ImageSet
from supsup_core.networks.mlp import MLP
from supsup_core.tasks.permuted import Permuted
from supsup_core.tasks.protocol import Setting, Task

NUM_CLASSES = 10
# The speeds of an H100, with which all lower bounds of times are computed: bytes of memory and
# operations in bfloat16, per second.
H100_BYTES, H100_FLOPS = 3.0e12, 798e12


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

    def peak(self) -> int | None:
        """Return the peak bytes of a GPU since the last call of `reset_peak`; None for the CPU."""
        return torch.cuda.max_memory_allocated() if self.device.type == "cuda" else None

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
