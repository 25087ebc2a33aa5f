"""Load the data set that the key `data` names: a known name, a path, or the user's own function."""

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.data.arrays import dataset_from_arrays
from harness.data.dataset import Dataset
from harness.data.files import DataFiles
from harness.data.names import DATASETS, is_path, loaders
from harness.errors import UserError
from supsup_core.names import load


def loader_of(data: str) -> Callable[..., Dataset]:
    """Return the function (files: DataFiles, **options) that loads a known name or a path.

    Raises:
        UserError: the name is unknown.
    """
    known = loaders(data)
    if data not in known:
        close = difflib.get_close_matches(data, DATASETS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(
            f"data must be one of {', '.join(DATASETS)}, or a path with a slash or the ending "
            f".npz, got {data!r}{hint}"
        )
    loader: Callable[..., Dataset] = load("data", known, data)
    return loader


def load_dataset(
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    data_dir: Path | None = None,
    download: bool = False,
    own: Callable[..., Any] | None = None,
) -> Dataset:
    """Load one data set.

    Args:
        name: the value of the key `data`: a name in DATASETS, a path, or the name of `own`.
        options: name of an option of the loader -> value, from data_options.
        data_dir: the user's folder, which is searched first; embedded data sets ignore it.
        download: whether to download missing files into the cache folder.
        own: the user's own function (files: DataFiles, **options). It returns a Dataset, or a
            mapping with the arrays of dataset_from_arrays. None: a known loader is used.

    Returns:
        The data set. Its arrays are writable, and no other call shares them.

    Raises:
        UserError: the name is unknown, an option has a value that is not allowed, a file is
            missing or cannot be read, or its content is not that of a data set.
    """
    path = Path(name) if own is None and is_path(name) else None
    loader = loader_of(name) if own is None else own
    try:
        found = loader(DataFiles(path, data_dir, download), **(options or {}))
    except ValueError as error:
        raise UserError(
            f"data={name} must load with data_options={dict(options or {})}, got: {error}: choose "
            "other data_options, or another data set"
        ) from error
    return found if isinstance(found, Dataset) else dataset_from_arrays(name, found)
