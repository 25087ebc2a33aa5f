"""Read the masks, and the angles of rotated tasks, from a run's store with zarr (3 or newer).

This module does not need the code of the harness.

Shape letters: S masks in a sample, R bytes in a row.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from numpy.typing import NDArray
from zarr.storage import FsspecStore

from analysis.load import as_path, file_system
from analysis.reading import check_store

# Number of masks in a sample. Their 496 pairs are enough for a mean, and need at most 32 chunks.
SAMPLE = 32


@dataclass(frozen=True)
class Layout:
    """The layout of a row, and the size of the network.

    Attributes:
        row_bytes: number of bytes in a packed state.
        layers: three values for each plane: its name, its byte offset in the row, and its number of
            bits. The name is the name of the masked tensor. If the plane's role is not "keep", the
            role follows, as in "layer1 negative".
        num_weights: number of weights of the fixed network.
        num_gains: number of gains of all masked tensors together.
        shared_bytes: number of bytes of the arrays that all tasks train together, or that a task
            passes on to the next task, after one task.
        trains_weights: whether tasks train weights, so that the weights cannot be made from a seed.
    """

    row_bytes: int
    layers: tuple[tuple[str, int, int], ...]
    num_weights: int
    num_gains: int
    shared_bytes: int = 0
    trains_weights: bool = False

    @property
    def num_bits(self) -> int:
        """Number of mask bits in a state. Padding bits and floats are not counted."""
        return sum(bits for _, _, bits in self.layers)


class _ArrowFiles(ArrowFSWrapper):  # type: ignore[misc]  # fsspec has no types
    """A file system of Arrow, for fsspec. The base class makes `fsid` of a host, which S3 lacks."""

    fsid = "arrow"


def open_store(run_dir: str | Path) -> Any:
    """Open a run's store, a Zarr group, to read. Use it in a with block of `readable`.

    Args:
        run_dir: the run directory, a path or a URL; see analysis.load.as_path.
    """
    where = run_dir if isinstance(run_dir, Path) else as_path(run_dir)
    return zarr.open_group(_zarr_store(where), mode="r", zarr_format=3, use_consolidated=False)


def _zarr_store(where: Path | str) -> Path | FsspecStore:
    """Return the folder of a store, or an object with which zarr reads the store at a URL."""
    if isinstance(where, Path):
        check_store(where / "masks.zarr")
        return where / "masks.zarr"
    # Arrow reads the objects, so that a store needs the same variables and credentials as a table.
    files, root = file_system(where)
    wrapped = AsyncFileSystemWrapper(_ArrowFiles(files), asynchronous=True)
    return FsspecStore(wrapped, read_only=True, path=f"{root}/masks.zarr")


@contextmanager
def readable(run_dir: str | Path) -> Iterator[None]:
    """Turn an error in the `with` block, which reads a store, into a ValueError with advice."""
    try:
        yield
    except (OSError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{run_dir}/masks.zarr must be the store of a run, got files that cannot be "
            f"read ({type(error).__name__}: {error}): python harness/status.py run_dir={run_dir} "
            "verify=true lists the damaged files; restore them from a copy of the run"
        ) from error


def layout(run_dir: str | Path) -> Layout:
    """Read the layout of a run's masks from its store.

    Raises:
        ValueError: the store cannot be read, or its attributes give no valid layout.
    """
    with readable(run_dir):
        group = open_store(run_dir)
        attributes = dict(group.attrs)
        planes, row_bytes = attributes["planes"], int(attributes["row_bytes"])
        layers = tuple((_named(p), int(p["byte_offset"]), int(p["num_bits"])) for p in planes)
        if any(first < 0 or bits < 1 or first + bits / 8 > row_bytes for _, first, bits in layers):
            raise ValueError(f"the planes do not fit into a row of {row_bytes} bytes")
        num_weights = sum(weights.size for _, weights in group["weights"].arrays())
        num_gains = sum(prod(tensor["shape"]) for tensor in attributes["tensors"])
        shared_bytes = sum(_bytes_of(array) for array in attributes.get("shared", []))
        trains_weights = "trained_weights" in attributes
        return Layout(row_bytes, layers, num_weights, num_gains, shared_bytes, trains_weights)


def _bytes_of(array: dict[str, Any]) -> int:
    """Return the bytes of a shared array. Bits are packed, and other values are float32."""
    size: int = prod(array["shape"])
    return -(-size // 8) if array["type"] == "bits" else 4 * size


def _named(plane: dict[str, Any]) -> str:
    role = "" if plane["role"] == "keep" else f" {plane['role']}"
    return f"{plane['tensor']}{role}"


def sample_masks(run_dir: str | Path, tasks: pd.DataFrame) -> NDArray[np.uint8]:
    """Read at most SAMPLE packed masks, evenly spread over the committed tasks.

    Args:
        run_dir: the run directory.
        tasks: rows of the table `tasks`. Only the masks of these tasks are committed.

    Returns:
        (S, R) packed masks, sorted by task number.

    Raises:
        ValueError: the store cannot be read.
    """
    ids = np.sort(tasks["task_id"].to_numpy())
    chosen = ids[np.linspace(0, len(ids) - 1, min(SAMPLE, len(ids))).round().astype(int)]
    with readable(run_dir):
        masks = open_store(run_dir)["masks"]
        return np.stack([masks[int(task)] for task in chosen])


def layer_statistics(rows: NDArray[np.uint8], masks: Layout) -> pd.DataFrame:
    """Compute the density and the overlap of masks, plane by plane.

    Args:
        rows: (S, R) packed masks.
        masks: the layout of these masks.

    Returns:
        One row per plane. `density` is the mean fraction of ones in a mask. `density_low` and
        `density_high` are the smallest and the largest fraction. The overlap of two masks is the
        number of ones that they have in common, divided by the geometric mean of their numbers of
        ones. `overlap` is the mean over all pairs of masks. `overlap_low` and `overlap_high` are
        the smallest and the largest overlap of a pair. `chance` is the mean overlap of independent
        random masks with these densities. For a single mask, overlap and chance are NaN. Empty if a
        row has no planes.
    """
    found = []
    for name, offset, num_bits in masks.layers:
        packed = rows[:, offset : offset + -(-num_bits // 8)]
        bits = np.unpackbits(packed, axis=1, count=num_bits, bitorder="little").astype(np.float32)
        ones = bits.sum(axis=1)
        size = np.sqrt(np.maximum(np.outer(ones, ones), 1))
        first, second = np.triu_indices(len(rows), 1)
        overlap = ((bits @ bits.T) / size)[first, second]
        density = ones / num_bits
        of_pairs = overlap if len(overlap) else np.array([np.nan])
        found.append(
            {
                "layer": name,
                "density": density.mean(),
                "density_low": density.min(),
                "density_high": density.max(),
                "overlap": of_pairs.mean(),
                "overlap_low": of_pairs.min(),
                "overlap_high": of_pairs.max(),
                "chance": (size[first, second] / num_bits).mean() if len(overlap) else np.nan,
            }
        )
    return pd.DataFrame(found)


def angles(run_dir: str | Path) -> NDArray[np.float64] | None:
    """Read the angle of each task in degrees.

    Returns:
        The angles. The index is the task number. None if the tasks are not rotations.

    Raises:
        ValueError: the store cannot be read.
    """
    with readable(run_dir):
        inputs = open_store(run_dir)["inputs"]
        return np.asarray(inputs["angles"][:], dtype=float) if "angles" in inputs else None
