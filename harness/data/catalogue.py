"""Load the data sets that a run can train on, by name.

Two data sets are embedded in installed packages. The other two are idx files, which are checked
by sha256 at every load and downloaded only on request.
"""

import difflib
from pathlib import Path

from harness.data.dataset import Dataset
from harness.data.embedded import load_digits, load_mnist5k
from harness.data.idx import IDX, load_idx
from harness.data.names import DATASETS
from harness.errors import UserError


def load_dataset(name: str, *, data_dir: Path | None = None, download: bool = False) -> Dataset:
    """Load one data set by name.

    Args:
        name: one of DATASETS.
        data_dir: folder that is searched first for idx files; embedded data sets ignore it.
        download: whether to download missing idx files into the cache folder.

    Returns:
        The data set. Its arrays are writable, and no other call shares them.

    Raises:
        UserError: the name is unknown, a file is missing or cannot be read, or its content differs
            from the published content.
    """
    if name == "mnist5k":
        return load_mnist5k()
    if name == "digits":
        return load_digits()
    if name in IDX:
        return load_idx(name, data_dir, download)
    close = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UserError(f"data must be one of {', '.join(DATASETS)}, got {name!r}{hint}")
