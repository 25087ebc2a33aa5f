"""The section about masks that reservoirs recall."""

import pandas as pd

from analysis import summary
from analysis.drawing.reservoirs import recall_by_masks, sweeps_by_masks
from analysis.pages.content import Section, Table, number, table
from analysis.pages.svg import drawing
from analysis.sections.cells import bytes_cell, way_columns


def reservoirs(reservoir: pd.DataFrame) -> Section:
    """Describe the recalls.

    Args:
        reservoir: rows of the table `reservoir`.
    """
    return Section(
        "Reservoirs",
        [
            drawing(
                "Left: fraction of masks recalled without an error, against the number of masks "
                "stored, with 95 % intervals by Wilson. A dotted line is a rule's capacity in "
                "theory, for cues without errors. Right: bytes of the reservoir and of the packed "
                "masks.",
                lambda: recall_by_masks(reservoir),
                "recall",
            ),
            drawing(
                "Sweeps of a recall that changed a bit, against the number of masks stored. Points "
                "are means over cues. For the cue data, the search that comes before the sweeps is "
                "not counted.",
                lambda: sweeps_by_masks(reservoir),
                "sweeps",
            ),
            _recalls(reservoir),
        ],
    )


def _recalls(reservoir: pd.DataFrame) -> Table:
    columns = ["bit_accuracy", "exact_recall", "accuracy", "accuracy_gg"]
    ordered = reservoir.sort_values(["rule", "cue", "num_tasks"])
    way, ways, told = way_columns(ordered, ["rule", "block", "cue", *summary.RECALL_SETTINGS])
    rows = [
        [
            *cells_of_way,
            row.num_tasks,
            row.num_cues,
            *(number(getattr(row, name)) for name in columns),
            bytes_cell(row.reservoir_bytes),
            bytes_cell(row.store_bytes),
        ]
        for cells_of_way, row in zip(ways, ordered.itertuples(), strict=True)
    ]
    heads = [*way, "masks", "cues", "bits right", "masks exact", "accuracy", "accuracy GG"]
    return table(f"Recall. {told}", [*heads, "reservoir", "packed masks"], rows)
