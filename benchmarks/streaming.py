"""Infer tasks among masks that pass by from a Zarr array, against reading its files alone.

Called by benchmarks/inference.py --growth; alone:

    python benchmarks/streaming.py --run runs/mnist-permuted-2500-fast --stream /tmp/stream

The array begins with the run's masks and goes on with distractors. It is written once and
kept; 1,000,000 masks of LeNet 300-100 are 39.5 GB.

read_store        the array's files, read as they are: what the disk or page cache gives
streamed          one query a pass, each chunk checked against its checksum
streamed_batched  all queries in one pass; seconds a query

Files leave the page cache after each pass where --cold is given, or memory cannot hold them.
"""

import argparse
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import zarr
from growth import Row
from masks import Masks, at_least_one, load_masks, one_line_errors

from harness.errors import UserError
from harness.storage.chunks import ChunkFiles, crc32c
from harness.storage.store import create_masks
from harness.workers.prepared import distractors_like
from supsup_core.bits.counts import ones_fused
from supsup_core.bits.evidence import Evidence, backward
from supsup_core.bits.streamed import StreamedScan
from supsup_core.bits.threads import Threads
from supsup_core.inference.objectives import OBJECTIVES
from supsup_core.states.bits import superpose_counted

TRAINED = 2500
QUERIES = 64


class Stream:
    """An array of masks on disk.

    Args:
        path: of the group.
    """

    def __init__(self, path: Path) -> None:
        group = zarr.open_group(path, mode="r")
        masks = group["masks"]
        self.origin = dict(group.attrs)
        self.counts: np.ndarray = group["counts"][:]
        self.num_masks, self.row_bytes = masks.shape
        self._rows = masks.chunks[0]
        self.files = ChunkFiles(path / "masks", self._rows, self.row_bytes)
        self.num_chunks = -(-self.num_masks // self._rows)

    def paths(self) -> list[Path]:
        """Of the files."""
        return [self.files.path(chunk) for chunk in range(self.num_chunks)]

    def chunk(self, number: int) -> tuple[int, np.ndarray]:
        """Task of a chunk's first mask, and its rows, checked."""
        reason, rows = self.files.examine(number)
        if reason or rows is None:
            raise UserError(f"{self.files.path(number)} {reason}: remove the folder, to write anew")
        first = number * self._rows
        return first, rows[: self.num_masks - first]

    def some(self, tasks: np.ndarray) -> np.ndarray:
        """Rows of some masks, of chunks that were checked when they passed by."""
        places = [divmod(task, self._rows) for task in tasks.tolist()]
        return np.concatenate(
            [self.files.read_rows(number, np.array([place])) for number, place in places]
        )


def write_stream(masks: Masks, num_masks: int, folder: Path, threads: int) -> Stream:
    """Write the masks and distractors behind them, unless they are there."""
    path = folder / f"masks-{num_masks}.zarr"
    # What the array follows from.
    origin = {"trained_crc32c": crc32c(masks.rows), "seed": masks.spec.config.seed}
    if path.exists():
        stream = Stream(path)
        if stream.origin != origin:
            raise UserError(
                f"stream {path} must be of these masks, got one of others: remove it, to write anew"
            )
        return stream
    row_bytes = masks.rows.shape[1]
    needed, free = num_masks * row_bytes, shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"folder {folder} must have {needed:,} bytes free, got {free:,}: choose another"
        )
    partial = path.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    group = zarr.create_group(partial, attributes=origin)
    array = create_masks(group, num_masks, row_bytes)
    size, num_trained = array.chunks[0], len(masks.rows)
    distractors = distractors_like(masks.spec, masks.rows)

    def write(first: int) -> np.ndarray:
        rows = np.empty((min(size, num_masks - first), row_bytes), np.uint8)
        num_kept = max(0, min(len(rows), num_trained - first))
        rows[:num_kept] = masks.rows[first : first + num_kept]
        distractors.draw(max(0, first - num_trained), rows[num_kept:])
        array[first : first + len(rows)] = rows
        return ones_fused(rows, np.arange(len(rows)), Threads(1))

    counts = np.zeros(8 * row_bytes, np.int32)
    with ThreadPoolExecutor(threads) as pool:
        for counted in pool.map(write, range(0, num_masks, size)):
            counts += counted
    group.create_array("counts", data=counts)
    partial.rename(path)
    return Stream(path)


def read_files(stream: Stream, threads: int) -> None:
    """Read all files as they are, into the same memory again and again."""
    paths = stream.paths()

    def read(part: int) -> None:
        buffer = bytearray(paths[0].stat().st_size)
        for path in paths[part::threads]:
            with path.open("rb", buffering=0) as file:
                file.readinto(buffer)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, range(threads)))


def infer(stream: Stream, queries: list[Evidence], threads: int) -> np.ndarray:
    """One pass for some queries."""
    scan = StreamedScan(queries, stream.num_masks, Threads(threads))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda number: scan.take(*stream.chunk(number)), range(stream.num_chunks)))
    return scan.decide(stream.some)


def evidence_of(
    stream: Stream, masks: Masks, images: torch.Tensor, objective: str
) -> list[Evidence]:
    """Evidence of queries under the superposition of all masks of the stream."""
    layout, weights = masks.spec.layout, masks.weights()
    shares = superpose_counted(layout, stream.counts, stream.num_masks).values()
    effective = [weight * share for weight, share in zip(weights, shares, strict=True)]
    firsts = [plane.bits.start for plane in layout.planes]
    return backward(
        weights, effective, firsts, images, OBJECTIVES[objective], masks.spec.num_classes
    )


@contextmanager
def uncached(stream: Stream, *, cold: bool) -> Iterator[None]:
    """Let the page cache hold nothing of the files, before and after."""

    def forget() -> None:
        for path in stream.paths() if cold else ():
            number = os.open(path, os.O_RDONLY)
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(number)

    forget()
    yield
    forget()


def measure_streamed(
    run: Path | None,
    num_masks: int,
    folder: Path,
    options: argparse.Namespace,
    *,
    cold: bool = False,
) -> list[Row]:
    """Passes in turns."""
    torch.set_num_threads(1)
    masks = load_masks(run, min(TRAINED, num_masks))
    folder.mkdir(parents=True, exist_ok=True)
    stream = write_stream(masks, num_masks, folder, options.threads)
    images, truth = masks.queries(QUERIES)
    queries = evidence_of(stream, masks, images, options.objective)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cold = cold or num_masks * stream.row_bytes > memory / 2
    passes: dict[str, Callable[[], object]] = {
        "read_store": lambda: read_files(stream, options.threads),
        "streamed": lambda: infer(stream, queries[:1], options.threads),
    }
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(options.rounds):
        for name, do in passes.items():
            with uncached(stream, cold=cold):
                began = time.perf_counter()
                do()
                seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    with uncached(stream, cold=cold):
        began = time.perf_counter()
        found = infer(stream, queries, options.threads)
        medians["streamed_batched"] = (time.perf_counter() - began) / len(queries)
    right = float((found == truth).mean())

    def row(name: str, extra_bytes: int, accuracy: float | None) -> Row:
        return Row(
            algorithm=name,
            num_tasks=num_masks,
            seconds_per_inference=medians[name],
            bits_read_fraction=1.0,
            agreement=None,
            ratio_dense=None,
            ratio_read=medians["read_store"] / medians[name],
            packed_bytes=num_masks * stream.row_bytes,
            extra_bytes=extra_bytes,
            task_accuracy=accuracy,
            num_inferences=len(queries) if accuracy is not None else 0,
            num_timed=options.rounds if name in passes else len(queries),
            num_trained=len(masks.rows),
            objective=options.objective,
            threads=options.threads,
        )

    products, superposition = 8 * num_masks, stream.counts.nbytes
    return [
        row("read_store", 0, None),
        row("streamed", products + superposition, None),
        row("streamed_batched", products * len(queries) + superposition, right),
    ]


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="a run's folder; without it a few are trained")
    parser.add_argument("--stream", type=Path, required=True, help="folder for the masks")
    parser.add_argument(
        "--tasks", type=at_least_one, default=100_000, help="k, masks to infer among"
    )
    parser.add_argument("--objective", choices=OBJECTIVES, default="H")
    parser.add_argument("--rounds", type=at_least_one, default=3)
    parser.add_argument("--threads", type=at_least_one, default=os.cpu_count())
    parser.add_argument("--cold", action="store_true", help="from the disk, not the page cache")
    options = parser.parse_args()
    with one_line_errors(parser):
        rows = measure_streamed(
            options.run, options.tasks, options.stream, options, cold=options.cold
        )
    for row in rows:
        print(json.dumps(asdict(row)))


if __name__ == "__main__":
    main()
