"""The section about bytes: several ways to store masks, and the way of the paper."""

import numpy as np
import pandas as pd

from analysis import stored, summary
from analysis.drawing.storage import FLOATS, INDEX_LISTS, PACKED, bytes_by_masks, storage_bytes
from analysis.pages.content import Part, Section, number, table
from analysis.pages.svg import drawing
from analysis.sections.cells import bytes_cell, size


def storage(
    tasks: pd.DataFrame,
    masks: stored.Layout,
    reservoir: pd.DataFrame | None,
    inferred: pd.DataFrame | None,
) -> Section:
    """Describe the bytes of the masks.

    Args:
        tasks: rows of the table `tasks`.
        masks: the layout of the masks.
        reservoir: rows of the table `reservoir`, or None.
        inferred: rows of the table `evaluations` of one way of inference at the largest number of
            masks, or None.
    """
    most = max(10, len(tasks))
    steps = np.unique(np.geomspace(1, most, 40).round().astype(int))
    sizes = storage_bytes(steps, masks, float(tasks["density"].mean()), reservoir)
    rows = [
        [name, bytes_cell(sizes[name].iloc[-1]), number(_exponent(sizes[name]), ".2f")]
        for name in sizes
    ]
    parts: list[Part] = [
        drawing(
            "Bytes that masks need, stored in several ways, against the number of masks. Dashed "
            "lines are sizes that do not grow with the number of masks.",
            lambda: bytes_by_masks(sizes),
            "bytes",
        ),
        table(
            f"Sizes for {most} masks. The exponent is b in bytes = a * masks^b.",
            ["storage", "size", "exponent"],
            rows,
        ),
    ]
    if masks.layers:
        parts.append(_against_the_paper(sizes.iloc[-1], most, masks, inferred))
    return Section("Bytes", parts)


def _exponent(sizes: pd.Series) -> float:
    return round(summary.scaling_exponent(sizes.index, sizes), 2) + 0.0  # never -0.0


def _against_the_paper(
    sizes: pd.Series, most: int, masks: stored.Layout, inferred: pd.DataFrame | None
) -> Part:
    """Compare the run with the storage and the code of Wortsman et al. 2020.

    The paper stores masks as sparse matrices with 16-bit indices. The authors' code has all masks
    as float32 in memory, and each gradient reads all of them.
    """
    compared = [
        (f"file of {most} masks", sizes[PACKED], sizes[INDEX_LISTS], "16-bit indices"),
        (f"memory of {most} masks", sizes[PACKED], sizes[FLOATS], "float32, the authors' code"),
    ]
    if inferred is not None and inferred["bits_read_fraction"].mean() > 0:
        k = int(inferred["num_tasks"].iloc[0])
        read = inferred["bits_read_fraction"].mean() * k * masks.row_bytes
        floats = k * masks.num_gains * 4
        told = f"bytes that one gradient reads, {k} masks"
        compared.append((told, read, floats, "float32, the authors' code"))
    rows = [
        [what, size(round(own)), size(round(other)), number(other / own, ".1f"), how]
        for what, own, other, how in compared
    ]
    caption = (
        "Compared with Wortsman et al. 2020. The numbers of the paper's way are computed for the "
        "masks of this run, without the column pointers of the sparse matrices. The paper states "
        "no times."
    )
    return table(
        caption, ["what", "this run", "the paper's way", "ratio", "the paper's way is"], rows
    )
