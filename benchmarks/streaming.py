"""Time task inference among masks that are read from a Zarr array, chunk by chunk.

benchmarks/inference.py --growth --stream uses this program. It also runs alone:

    python benchmarks/streaming.py --run runs/mnist-permuted-2500-fast --stream /tmp/stream

The array contains the run's masks first, and then distractors. The array is written once and kept.
1,000,000 masks of LeNet 300-100 take 39.5 GB.

read_store        read the bytes of the array's files: the speed of the disk or of the page cache
streamed          one query per pass; each chunk is checked against its checksum
streamed_batched  all queries in one pass; seconds per query

Every pass reads from the disk if --cold is given, or if the masks take more than half of the
memory. For this, the files are dropped from the page cache before and after each pass.
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
from commandline import Parser, folder, run_program, whole
from growth import Row
from masks import Masks, load_masks

from harness.errors import UserError
from harness.places.machine import memory_bytes
from harness.storage.arrays import create_masks
from harness.storage.chunks import ChunkFiles, crc32c
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
        path: the folder of the Zarr group.
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
        """Return the path of each chunk's file."""
        return [self.files.path(chunk) for chunk in range(self.num_chunks)]

    def chunk(self, number: int) -> tuple[int, np.ndarray]:
        """Read and check a chunk; return the task number of its first row, and its rows."""
        reason, rows = self.files.examine(number)
        if reason or rows is None:
            raise UserError(
                f"{self.files.path(number)} {reason}: remove the stream's folder, and run again"
            )
        first = number * self._rows
        return first, rows[: self.num_masks - first]

    def some(self, tasks: np.ndarray) -> np.ndarray:
        """Read the rows of some tasks, without a check: the pass has already checked the chunks."""
        places = [divmod(task, self._rows) for task in tasks.tolist()]
        return np.concatenate(
            [self.files.read_rows(number, np.array([place])) for number, place in places]
        )


def write_stream(masks: Masks, num_masks: int, folder: Path, threads: int) -> Stream:
    """Write the masks, and then distractors, to an array on disk; open the array if it exists.

    Raises:
        UserError: the array contains other masks, or the disk does not have enough space.
    """
    path = folder / f"masks-{num_masks}.zarr"
    # The content of the array follows from these two values.
    origin = {"trained_crc32c": crc32c(masks.rows), "seed": masks.spec.config.seed}
    if path.exists():
        stream = Stream(path)
        if stream.origin != origin:
            raise UserError(
                f"stream {path} must hold these masks, got others: remove the folder, and run again"
            )
        return stream
    row_bytes = masks.rows.shape[1]
    needed, free = num_masks * row_bytes, shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"folder {folder} must have {needed:,} bytes free, got {free:,}: try another --stream"
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
    """Read the bytes of all files; each thread reads its share of the files into one buffer."""
    paths = stream.paths()

    def read(part: int) -> None:
        buffer = bytearray(paths[0].stat().st_size)
        for path in paths[part::threads]:
            with path.open("rb", buffering=0) as file:
                file.readinto(buffer)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, range(threads)))


def infer(stream: Stream, queries: list[Evidence], threads: int) -> np.ndarray:
    """Infer the tasks of some queries in one pass over the array."""
    scan = StreamedScan(queries, stream.num_masks, Threads(threads))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda number: scan.take(*stream.chunk(number)), range(stream.num_chunks)))
    return scan.decide(stream.some)


def evidence_of(
    stream: Stream, masks: Masks, images: torch.Tensor, objective: str
) -> list[Evidence]:
    """Compute the evidence of queries under the superposition of all masks of the stream."""
    layout, weights = masks.spec.layout, masks.weights()
    shares = superpose_counted(layout, stream.counts, stream.num_masks).values()
    effective = [weight * share for weight, share in zip(weights, shares, strict=True)]
    firsts = [plane.bits.start for plane in layout.planes]
    return backward(
        weights, effective, firsts, images, OBJECTIVES[objective], masks.spec.num_classes
    )


@contextmanager
def uncached(stream: Stream, *, cold: bool) -> Iterator[None]:
    """If `cold`, drop the files from the page cache before and after the `with` block."""

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
    """Time the passes in turns, and return one row for each of the three forms."""
    torch.set_num_threads(1)
    masks = load_masks(run, min(TRAINED, num_masks))
    folder.mkdir(parents=True, exist_ok=True)
    stream = write_stream(masks, num_masks, folder, options.threads)
    images, truth = masks.queries(QUERIES)
    queries = evidence_of(stream, masks, images, options.objective)
    cold = cold or num_masks * stream.row_bytes > memory_bytes() / 2
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
    """Read the options, measure and print."""
    parser = Parser(__doc__)
    parser.add_argument("--run", type=folder, help="folder of a run (default: train a few masks)")
    parser.add_argument("--stream", type=Path, required=True, help="folder to keep the array in")
    parser.add_argument("--tasks", type=whole(), default=100_000, help="k, the number of masks")
    parser.add_argument("--objective", choices=OBJECTIVES, default="H")
    parser.add_argument("--rounds", type=whole(), default=3)
    parser.add_argument("--threads", type=whole(at_most=1024), default=os.cpu_count())
    parser.add_argument("--cold", action="store_true", help="read from the disk in every pass")
    options = parser.parse_args()
    rows = measure_streamed(options.run, options.tasks, options.stream, options, cold=options.cold)
    for row in rows:
        print(json.dumps(asdict(row)))


if __name__ == "__main__":
    run_program(main)
