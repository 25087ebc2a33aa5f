"""The section that shows masks: as images, and by the density and the overlap of each layer."""

from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import pictures, stored
from analysis.drawing.masks import masks_by_layer
from analysis.pages.content import Gallery, Part, Picture, Section, number, table
from analysis.pages.svg import drawing

_TASKS_SHOWN = 6


def masks(
    tasks: pd.DataFrame, layout: stored.Layout, run_dir: str | Path, *, is_stream: bool
) -> Section:
    """Show the masks of a run. The states of the run must have planes of bits.

    Args:
        tasks: rows of the table `tasks`.
        layout: the layout of the masks.
        run_dir: the run directory.
        is_stream: whether the masks belong to a learner on a stream.
    """
    return Section(
        "Masks", [*_pictures(tasks, run_dir, is_stream), *_statistics(tasks, layout, run_dir)]
    )


def _pictures(tasks: pd.DataFrame, run_dir: str | Path, is_stream: bool) -> list[Part]:
    ids = np.sort(tasks["task_id"].to_numpy())
    chosen = ids[np.linspace(0, len(ids) - 1, min(stored.SAMPLE, len(ids))).round().astype(int)]
    layers = pictures.first_layers(run_dir, [int(one) for one in chosen], is_stream=is_stream)
    first = next(layers, None)
    if first is None:
        return []
    if first.side is None:
        return [_matrices([first, *islice(layers, _TASKS_SHOWN - 1)])]
    shares = {one.task_id: pictures.kept_by_pixel(one) for one in (first, *layers)}
    return [_by_pixel(shares), _of_units(first)]


def _matrices(layers: list[pictures.FirstLayer]) -> Gallery:
    return Gallery(
        "The corner of the first layer's mask, for some tasks. A row has the bits of one output. A "
        "dark bit keeps its weight.",
        [
            Picture(f"task {layer.task_id}", pictures.as_url(pictures.matrix(layer), "Greys", 0, 1))
            for layer in layers
        ],
    )


def _by_pixel(shares: dict[int, np.ndarray]) -> Gallery:
    """Show the mean over tasks, and some tasks. Tasks have a scale of their own.

    Args:
        shares: task number -> the result of pictures.kept_by_pixel.
    """
    mean, step = np.mean(list(shares.values()), axis=0), -(-len(shares) // (_TASKS_SHOWN - 1))
    some = dict(islice(shares.items(), 0, None, step))
    low, high = min(one.min() for one in some.values()), max(one.max() for one in some.values())
    shown = [
        Picture(f"task {task}", pictures.as_url(share, "viridis", low, high))
        for task, share in some.items()
    ]
    mean_url = pictures.as_url(mean, "viridis", mean.min(), mean.max())
    return Gallery(
        "Fraction of the first layer's weights that the mask keeps, for each pixel: dark pixels "
        f"have the lowest fraction. The mean over {len(shares)} tasks goes from {mean.min():.2f} "
        f"to {mean.max():.2f}, and the tasks from {low:.2f} to {high:.2f}. If tasks permute "
        "pixels, each pixel is shown at its place in the original image.",
        [Picture(f"mean of {len(shares)} tasks", mean_url), *shown],
    )


def _of_units(layer: pictures.FirstLayer) -> Gallery:
    units = range(min(pictures.MOST_UNITS, len(layer.weights)))
    images = [pictures.weights_of_unit(layer, unit) for unit in units]
    largest = max(float(np.abs(one).max()) for one in images) or 1.0
    return Gallery(
        f"Weights of the first units of the first layer, with the mask of task {layer.task_id}. "
        "Blue weights are negative, red weights are positive, and the mask drops the white ones.",
        [
            Picture(f"unit {unit}", pictures.as_url(image, "RdBu_r", -largest, largest))
            for unit, image in zip(units, images, strict=True)
        ],
    )


def _statistics(tasks: pd.DataFrame, layout: stored.Layout, run_dir: str | Path) -> list[Part]:
    """Make the figure and the table of the masks' densities and overlaps, plane by plane."""
    statistics = stored.layer_statistics(stored.sample_masks(run_dir, tasks), layout)
    rows = [
        [row["layer"], *(number(row[name]) for name in ("density", "overlap", "chance"))]
        for _, row in statistics.iterrows()
    ]
    return [
        drawing(
            "Density of the masks, and the fraction of ones that two masks have in common, by "
            f"layer. Lines go from the smallest to the largest value. The sample has "
            f"{min(stored.SAMPLE, len(tasks))} masks, spread evenly over the tasks.",
            lambda: masks_by_layer(statistics),
            "layers",
        ),
        table("Means by layer", ["layer", "density", "overlap", "by chance"], rows),
    ]
