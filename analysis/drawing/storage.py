"""Compute and draw how many bytes masks need, for several ways to store them."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.drawing.style import legend_below, name_axes, panels
from analysis.stored import Layout

# Names of columns of storage_bytes. A run needs the first three to classify images.
PACKED, SHARED_ARRAYS, WEIGHTS_SEED = "packed masks", "shared arrays", "seed of the weights"
FLOATS, INDEX_LISTS = "float32", "index lists, 16 bits"


def storage_bytes(
    num_masks: np.ndarray, masks: Layout, density: float, reservoir: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Compute how many bytes masks need, for several ways to store the masks.

    Args:
        num_masks: the numbers of masks for which the bytes are computed.
        masks: the layout of the masks.
        density: mean fraction of gains that are not zero, in [0, 1].
        reservoir: rows of the table `reservoir`, or None if the run does not have this table.

    Returns:
        One row per number of masks, and one column for each way to store the masks: as packed bits,
        as float32 gains, as lists of the indices of gains that are not zero, or in the largest
        reservoir of each rule. An index takes 2 bytes, as in Wortsman et al. 2020, who store masks
        as sparse matrices with 16-bit indices. States without planes of bits have no index lists.
        The other columns have the bytes of arrays that tasks share, the bytes of the fixed weights,
        and the 8 bytes of the seed from which the fixed weights can be made.
    """
    kept = round(density * masks.num_gains)
    sizes = {
        PACKED: num_masks * masks.row_bytes,
        FLOATS: num_masks * masks.num_gains * 4,
    }
    if masks.layers:
        sizes[INDEX_LISTS] = num_masks * kept * 2
    if masks.shared_bytes:
        sizes[SHARED_ARRAYS] = np.full(len(num_masks), masks.shared_bytes)
    if reservoir is not None:
        for rule, most in reservoir.groupby("rule")["reservoir_bytes"].max().items():
            sizes[f"reservoir, {rule}"] = np.full(len(num_masks), most)
    if not masks.trains_weights:
        sizes["fixed weights"] = np.full(len(num_masks), masks.num_weights * 4)
        sizes[WEIGHTS_SEED] = np.full(len(num_masks), 8)
    return pd.DataFrame(sizes, index=pd.Index(num_masks, name="num_tasks"))


def bytes_by_masks(sizes: pd.DataFrame) -> Figure:
    """Draw the bytes of stored masks against the number of masks, a line for each way of storage.

    Args:
        sizes: the result of storage_bytes.
    """
    figure, [axes] = panels(1)
    for storage in sizes:
        constant = sizes[storage].nunique() == 1
        axes.plot(sizes.index, sizes[storage], "--" if constant else "-", label=storage)
    axes.set(xscale="log", yscale="log")
    name_axes(axes, "masks", "bytes", "bytes to store the masks")
    legend_below(figure)
    return figure
