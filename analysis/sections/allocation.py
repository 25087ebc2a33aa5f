"""The section about the masks that a learner on a stream allocates (scenario=nns)."""

import pandas as pd

from analysis.allocation import masks_by_task
from analysis.pages.content import Section, Text, table
from analysis.pages.svg import drawing


def allocated(found: pd.Series) -> str:
    """Say in one sentence how many masks the learner allocated, and its mistakes.

    Args:
        found: the result of analysis.allocation.mistakes.
    """
    return (
        f"The learner was not told the task. It allocated {found['masks']} masks for "
        f"{found['tasks']} tasks, with {found['false_splits']} false splits and "
        f"{found['false_merges']} false merges."
    )


def allocation(rows: pd.DataFrame, found: pd.Series) -> Section:
    """Describe the masks of a learner on a stream.

    Args:
        rows: rows of the table `allocation`.
        found: the result of analysis.allocation.mistakes.
    """
    heads = [name.replace("_", " ") for name in found.index]
    return Section(
        "Allocation",
        [
            Text(
                "A false split is a mask for a task that had a mask. A "
                "false merge is a task for which the learner mostly used the mask of another task."
            ),
            table("Counts", heads, [[int(value) for value in found]]),
            drawing(
                "Left: allocated masks against the tasks that the stream has shown. Right: the "
                "score of each decision, divided by its threshold. A mask is allocated if the "
                "ratio is below 1, which should be so at the first decision about a task only.",
                lambda: masks_by_task(rows),
                "allocation",
            ),
        ],
    )
