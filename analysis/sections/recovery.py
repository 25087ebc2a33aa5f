"""The section about masks that gradient descent recovers from reservoirs."""

import pandas as pd

from analysis.pages.content import Section, number, table
from analysis.pages.svg import drawing
from analysis.recovery import DESCENTS, steps_until_found, wrong_bits_by_step
from analysis.sections.cells import way_columns


def recovery(rows: pd.DataFrame) -> Section:
    """Describe the descents.

    Args:
        rows: rows of the table `recovery`.
    """
    found = steps_until_found(rows)
    way, ways, told = way_columns(found, DESCENTS)
    cells = [
        [
            *of_way,
            *(row.task_id, row.found_after, row.wrong_bits),
            *(number(row.accuracy), number(row.accuracy_gg)),
        ]
        for of_way, row in zip(ways, found.itertuples(), strict=True)
    ]
    caption = (
        "Masks after the last gradient step. found after: gradient steps after which no bit was "
        f"wrong any more; empty if the mask was not found. {told}"
    )
    heads = [*way, "task", "found after", "wrong bits", "accuracy", "accuracy GG"]
    return Section(
        "Recovery by gradient descent",
        [
            drawing(
                "Left: wrong bits of each layer's mask against the number of gradient steps; thin "
                "lines are tasks, and a thick line is their mean. Right: accuracy with the mask of "
                "each step, and with the stored masks (dashed).",
                lambda: wrong_bits_by_step(rows),
                "recovery",
            ),
            table(caption, heads, cells),
        ],
    )
