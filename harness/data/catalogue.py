"""Names -> arrays: the data sets a run can train on.

Two are embedded in packages we depend on; two are idx files, checked by sha256
on every load and downloaded only when asked.
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
        data_dir: folder searched first for idx files; unused by the embedded sets.
        download: fetch missing idx files into the cache folder.

    Returns:
        The data set; its arrays are writable and not shared with any other call.

    Raises:
        UserError: the name is unknown; a file is missing, unreadable or not the
            published one; or an installed package ships other data than expected.
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
