"""Make the rows of the table `queries`: for each query, the inferred mask and the runner-up.

A few rows of each unit also have a picture of the query's first image, so that a report can show
examples without the data set.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64, UInt8
from PIL import Image

from harness.plan.ownership import Ownership
from harness.tables.schemas import QUERIES
from harness.workers.answers import Answers
from supsup_core.inference.answers import NO_TASK

# Number of queries of a unit whose pictures are stored. Wrong answers are more interesting.
WRONG_SHOWN, RIGHT_SHOWN = 3, 1
# Number of values of the largest image that is stored: 64 x 64 grey pixels, or 32 x 32 in colour.
# Larger images would take more space than all other columns.
LARGEST_PICTURE = 4096

Shown = Callable[[int], UInt8[np.ndarray, "..."]]


def query_rows(
    same: Mapping[str, Any],
    truth: Int64[np.ndarray, " Q"],
    batches: Int64[np.ndarray, " Q"],
    images: Int64[np.ndarray, " Q"],
    answers: Answers,
    own: Ownership,
    shown: Shown,
) -> pa.Table:
    """Make the rows of one evaluation unit.

    Args:
        same: a mapping from column name to a value that all rows have.
        truth: (Q,) the task of each query.
        batches: (Q,) the number of each query's batch among the batches of its task, from 0.
        images: (Q,) the index of each query's first image in the test set.
        answers: the answers to the queries.
        own: the tasks that the masks belong to.
        shown: a function that takes the number of a query, and returns the pixels of the query's
            first image as the task shows it.
    """
    found = answers.found
    inferred, runners_up = found.tasks.numpy(), found.runners_up.numpy()
    margins = found.margins.numpy().astype(np.float32)
    pairs = zip(inferred.tolist(), truth.tolist(), strict=True)
    right = np.array([own.task_of(mask) == task for mask, task in pairs])
    columns: dict[str, Any] = {
        "task_id": truth,
        "batch": batches,
        "image": images,
        "inferred": inferred,
        "runner_up": pa.array(runners_up, pa.int32(), mask=runners_up == NO_TASK),
        "margin": pa.array(margins, mask=np.isnan(margins)),
        "right": right,
        "picture": _pictures(right, shown),
    }
    columns |= {name: [value] * len(truth) for name, value in same.items()}
    return pa.table({name: columns[name] for name in QUERIES.names}, schema=QUERIES)


def _pictures(right: Bool[np.ndarray, " Q"], shown: Shown) -> Sequence[bytes | None]:
    """Return the PNG file of each query's picture; None for a query without a picture."""
    chosen = [*np.flatnonzero(~right)[:WRONG_SHOWN], *np.flatnonzero(right)[:RIGHT_SHOWN]]
    found: list[bytes | None] = [None] * len(right)
    for query in chosen:
        found[query] = as_png(shown(int(query)))
    return found


def as_png(pixels: UInt8[np.ndarray, "..."]) -> bytes | None:
    """Return an image as a PNG file.

    Args:
        pixels: (H, W), (1, H, W) or (3, H, W) pixels.

    Returns:
        The bytes of the file; None if the pixels have another shape, or are too many.
    """
    if pixels.ndim == 3 and len(pixels) == 1:
        pixels = pixels[0]
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and len(pixels) == 3)
    if not is_image or pixels.size > LARGEST_PICTURE:
        return None
    file = io.BytesIO()
    axes_last = pixels if pixels.ndim == 2 else pixels.transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(axes_last)).save(file, format="PNG")
    return file.getvalue()
