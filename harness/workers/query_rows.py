"""Make the rows of the table `queries`: for each query, the inferred mask and the runner-up.

A few rows of each unit also have a picture of the query's first image, so that a report can show
examples without the data set.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, UInt8
from PIL import Image

from harness.plan.ownership import Ownership
from harness.tables.inference import QUERIES
from harness.workers.answers import Answers
from supsup_core.inference.answers import NO_TASK
from supsup_core.tasks.protocol import Task
from supsup_core.tasks.shown import ShownImages

# Number of queries of a unit whose pictures are stored. Wrong answers are more interesting.
WRONG_SHOWN, RIGHT_SHOWN = 3, 1
# Number of values of the largest image that is stored: 64 x 64 grey pixels, or 32 x 32 in colour.
# Larger images would take more space than all other columns.
LARGEST_PICTURE = 4096

Query = tuple[Task, int, np.ndarray]


def query_rows(
    same: Mapping[str, Any],
    queries: Sequence[Query],
    answers: Answers,
    own: Ownership,
    shown: ShownImages,
) -> pa.Table:
    """Make the rows of one evaluation unit.

    Args:
        same: a mapping from column name to a value that all rows have.
        queries: for each query: its task, the number of its batch among the batches of the task,
            from 0, and the indices of the batch's images in the test set.
        answers: the answers to the queries.
        own: the tasks that the masks belong to.
        shown: the images of the test set.
    """
    truth = np.array([task.task_id for task, _, _ in queries])
    found = answers.found
    inferred, runners_up = found.tasks.numpy(), found.runners_up.numpy()
    margins = found.margins.numpy().astype(np.float32)
    pairs = zip(inferred.tolist(), truth.tolist(), strict=True)
    right = np.array([own.task_of(mask) == task for mask, task in pairs])
    columns: dict[str, Any] = {
        "task_id": truth,
        "batch": [number for _, number, _ in queries],
        "image": [batch[0] for _, _, batch in queries],
        "inferred": inferred,
        "runner_up": pa.array(runners_up, pa.int32(), mask=runners_up == NO_TASK),
        "margin": pa.array(margins, mask=np.isnan(margins)),
        "right": right,
        "picture": _pictures(right, queries, shown),
    }
    columns |= {name: [value] * len(truth) for name, value in same.items()}
    return pa.table({name: columns[name] for name in QUERIES.names}, schema=QUERIES)


def _pictures(
    right: Bool[np.ndarray, " Q"], queries: Sequence[Query], shown: ShownImages
) -> list[bytes | None]:
    """Return the PNG file of each query's picture; None for a query without a picture."""
    chosen = [*np.flatnonzero(~right)[:WRONG_SHOWN], *np.flatnonzero(right)[:RIGHT_SHOWN]]
    found: list[bytes | None] = [None] * len(right)
    for query in chosen:
        task, _, batch = queries[query]
        found[query] = as_png(shown.of(task, batch[:1])[0].cpu().numpy())
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
