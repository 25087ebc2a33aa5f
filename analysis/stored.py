"""Masks and inputs of a run's store, read with zarr and numpy alone.

Shape letters: S masks of a sample, R bytes of a row.
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

SAMPLE = 32  # masks: 496 pairs say enough of a mean, and a chunk is read for each at most


@dataclass(frozen=True)
class Layout:
    """What a store says of its masks.

    Args:
        row_bytes: length of a packed state.
        layers: name, byte offset and number of bits of each plane: the masked tensor's name, and
            behind it what the plane means where it is not which gains are kept.
        num_weights: number of weights of the fixed network.
        num_gains: number of gains of the masked tensors.
    """

    row_bytes: int
    layers: tuple[tuple[str, int, int], ...]
    num_weights: int
    num_gains: int

    @property
    def num_bits(self) -> int:
        """Number of bits of a state, not counting the padding of a row, nor floats."""
        return sum(bits for _, _, bits in self.layers)


def _group(run_dir: str | Path) -> Any:
    return zarr.open_group(Path(run_dir) / "masks.zarr", mode="r", use_consolidated=False)


def layout(run_dir: str | Path) -> Layout:
    """How a run's masks lie in their rows."""
    group = _group(run_dir)
    attributes = dict(group.attrs)
    layers = tuple(
        (_named(one), int(one["byte_offset"]), int(one["num_bits"])) for one in attributes["planes"]
    )
    num_weights = sum(weights.size for _, weights in group["weights"].arrays())
    num_gains = sum(prod(tensor["shape"]) for tensor in attributes["tensors"])
    return Layout(int(attributes["row_bytes"]), layers, num_weights, num_gains)


def _named(plane: dict[str, Any]) -> str:
    role = "" if plane["role"] == "keep" else f" {plane['role']}"
    return f"{plane['tensor']}{role}"


def sample_masks(run_dir: str | Path, tasks: pd.DataFrame) -> NDArray[np.uint8]:
    """Packed masks (S, R), evenly spread over the committed tasks.

    Args:
        run_dir: of the run.
        tasks: rows of the table `tasks`: a mask that it does not name does not exist.
    """
    ids = np.sort(tasks["task_id"].to_numpy())
    chosen = ids[np.linspace(0, len(ids) - 1, min(SAMPLE, len(ids))).round().astype(int)]
    masks = _group(run_dir)["masks"]
    return np.stack([masks[int(task)] for task in chosen])


def layer_statistics(rows: NDArray[np.uint8], masks: Layout) -> pd.DataFrame:
    """Density and overlap of masks, layer by layer.

    Args:
        rows: packed masks (S, R).
        masks: their layout.

    Returns:
        A row a layer. density: the mean share of ones, with that of the sparsest and the densest
        mask. overlap: of the ones of two masks the share that both have (over the geometric mean
        of their numbers), the mean over all pairs and the smallest and largest pair, NaN for one
        mask; `chance`: what masks of these densities share when they know nothing of each other.
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
    """The angle of every task in degrees, by task; None where tasks are not rotations."""
    inputs = _group(run_dir)["inputs"]
    return np.asarray(inputs["angles"][:], dtype=float) if "angles" in inputs else None
