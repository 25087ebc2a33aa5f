"""The section about single queries: which tasks are confused, and examples as images."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from analysis import pictures, stored
from analysis.drawing.confusion import answering_ways, tasks_confused
from analysis.pages.content import Gallery, Part, Picture, Section, Text, table
from analysis.pages.svg import drawing
from analysis.queries import last_queries, of_way, wrong_counts

_WRONG_SHOWN, _SHOWN = 6, 8  # pictures of wrong answers, and of all answers together


def single_queries(
    queries: pd.DataFrame, way: pd.DataFrame, run_dir: str | Path, *, is_stream: bool
) -> Section:
    """Show the confused tasks and some queries, at the largest number of masks.

    Args:
        queries: rows of the table `queries`, at least one of them without untrained masks.
        way: the result of summary.main_way. Its right answers are shown, and its wrong answers
            first.
        run_dir: the run directory.
        is_stream: whether the masks belong to a learner on a stream, so that mask i may belong to
            another task than task i.
    """
    last = last_queries(queries)
    parts: list[Part] = []
    if last["right"].all():
        parts.append(
            Text(
                f"0 wrong of {len(last):,} queries by all algorithms and objectives, among "
                f"{last['num_tasks'].iloc[0]} masks."
            )
        )
    else:
        kind = "mask" if is_stream else "task"
        caption = (
            f"Wrong answers among {last['num_tasks'].iloc[0]} masks: true task against inferred "
            f"{kind}, for the ways of inference with the most wrong answers. A stronger "
            "colour stands for a larger fraction of the true task's queries. With more than 40 "
            "tasks, a square is a group of tasks. Right answers are not drawn; with a mask for "
            "each task, they are on the dotted line."
        )
        parts.append(drawing(caption, lambda: tasks_confused(last), "confused"))
        if not is_stream:
            parts.append(_counts(last))
    main = of_way(last, way.iloc[0])
    shown = _examples(last, main)
    if len(shown):
        parts.append(_gallery(shown, _permutations(run_dir), is_stream=is_stream))
    return Section("Single queries", parts)


def _counts(last: pd.DataFrame) -> Part:
    rows = []
    for label, of_line in answering_ways(last):
        wrong = of_line[~of_line["right"]]
        asked, num_wrong, seconds = wrong_counts(of_line)
        pairs = wrong.groupby(["task_id", "inferred"]).size()
        most = "" if pairs.empty else "{} as {}".format(*pairs.idxmax())
        rows.append([label, asked, num_wrong, seconds, most, pairs.max() if num_wrong else 0])
    return table(
        "Wrong answers by way of inference. The runner-up is the task with the second best score. "
        "If several ways gave the same answers, it is the runner-up of the first way.",
        [
            *("inferred by", "queries", "wrong", "right task is the runner-up"),
            *("most frequent confusion", "times"),
        ],
        rows,
    )


def _examples(last: pd.DataFrame, main: pd.DataFrame) -> pd.DataFrame:
    """Choose queries with a picture: wrong answers first, then right answers by a small margin."""
    both = pd.concat([main, *(rows for _, rows in answering_ways(last))])
    wrong = both[both["picture"].notna() & ~both["right"]]
    wrong = wrong.drop_duplicates(["task_id", "batch"]).head(_WRONG_SHOWN)
    right = main[main["picture"].notna() & main["right"]].sort_values("margin", kind="stable")
    return pd.concat([wrong, right]).head(_SHOWN)


def _gallery(shown: pd.DataFrame, orders: NDArray[np.int64] | None, *, is_stream: bool) -> Gallery:
    kind, found = "mask " if is_stream else "", []
    for one in shown.itertuples():
        order = None if orders is None else orders[one.task_id]
        runner_up = "unknown" if pd.isna(one.runner_up) else f"{kind}{one.runner_up:.0f}"
        verdict = "right" if one.right else "wrong"
        by = " ".join(part for part in (one.algorithm, one.objective) if isinstance(part, str))
        margin = "" if pd.isna(one.margin) else f", margin {one.margin:.3g}"
        found.append(
            Picture(
                f"task {one.task_id}, inferred {kind}{one.inferred} ({verdict}), runner-up "
                f"{runner_up}",
                pictures.pixels_url(_in_order(one.picture, order)),
                f"{by}, image {one.image} of the test set{margin}",
            )
        )
    told = "Pixels are put back in the order of the original image." if orders is not None else ""
    return Gallery(
        "Some queries: the first image of each, the true task, the inferred task and the "
        f"runner-up. Wrong answers come first. {told}".strip(),
        found,
    )


def _in_order(file: bytes, order: NDArray[np.int64] | None) -> NDArray[np.uint8]:
    """Decode a picture, and undo the permutation of its pixels, or of its single values."""
    pixels = np.asarray(Image.open(io.BytesIO(file)))
    if order is None:
        return pixels
    first = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    original = first.reshape(-1, len(order))[:, np.argsort(order)].reshape(first.shape)
    return original[0] if pixels.ndim == 2 else original.transpose(1, 2, 0)


def _permutations(run_dir: str | Path) -> NDArray[np.int64] | None:
    """Read the permutation of each task; None if tasks permute no pixels."""
    with stored.readable(run_dir):
        inputs = stored.open_store(run_dir)["inputs"]
        return np.asarray(inputs["permutations"][:]) if "permutations" in inputs else None
