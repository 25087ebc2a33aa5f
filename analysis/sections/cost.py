"""The section about the time and the bits that task inference takes."""

import pandas as pd

from analysis import stored, summary
from analysis.bandwidth import memory_bandwidth
from analysis.drawing.cost import time_by_masks
from analysis.pages.content import Part, Section, Text, number, table
from analysis.pages.svg import drawing
from analysis.sections.cells import way_columns


def cost(inferring: pd.DataFrame, found: pd.DataFrame, masks: stored.Layout) -> Section:
    """Describe the time and the bits.

    Args:
        inferring: rows of the table `evaluations`, without the algorithm that is given the task.
        found: the result of summary.evaluation_summary for these rows.
        masks: the layout of the masks.
    """
    bandwidth = memory_bandwidth()
    caption = (
        "Left: median seconds per inference, with a band between the quartiles. The dashed line is "
        "the shortest possible time of a full scan, which reads all packed bits once, at "
        f"{bandwidth / 1e9:.1f} GB/s. One thread reads at this speed on the machine that wrote "
        "this report. Right: mask bytes read per gradient."
    )
    return Section(
        "Time and bits read",
        [
            drawing(caption, lambda: time_by_masks(inferring, masks.row_bytes, bandwidth), "time"),
            _exponents(found),
        ],
    )


def _exponents(found: pd.DataFrame) -> Part:
    exponents = summary.time_exponents(found)
    if exponents.empty:
        return Text(
            "The growth of time with the number of masks is unknown. It needs evaluations at "
            f"{summary.FEWEST_SIZES} or more numbers of masks, and the largest number must be at "
            f"least {summary.LEAST_SPAN} times the smallest."
        )
    way, ways, told = way_columns(exponents, summary.WAYS)
    rows = [
        [*cells, int(row["checkpoints"]), number(row["exponent"], ".2f")]
        for cells, (_, row) in zip(ways, exponents.iterrows(), strict=True)
    ]
    caption = (
        "Growth of time: the exponent b in seconds = a * masks^b, by least squares on logarithms."
    )
    return table(f"{caption} {told}", [*way, "checkpoints", "exponent"], rows)
