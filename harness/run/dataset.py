"""Load the data set of a configuration, and identify its content."""

import hashlib
import logging

import numpy as np

from harness.config.options import load_named, resolved_options
from harness.config.own_code import is_own
from harness.config.schema import Config
from harness.data.catalogue import load_dataset
from harness.data.dataset import Dataset
from harness.data.names import DATASETS, is_path
from harness.places.places import local

logger = logging.getLogger("harness")

_NUM_PROBES = 100  # images that are read from files to identify a data set


def dataset_of(config: Config, *, download: bool = False) -> Dataset:
    """Load the data set that a configuration names, and log its licence.

    Args:
        config: the configuration.
        download: whether to download missing files into the cache folder.

    Raises:
        UserError: an option of the data set is not allowed, or the data set cannot be loaded.
    """
    found = load_dataset(
        config.data,
        resolved_options(config, ["data"]).data_options,
        data_dir=local(config.data_dir, "data_dir") if config.data_dir else None,
        download=download,
        own=load_named("data", DATASETS, config.data) if is_own(config.data) else None,
    )
    if found.licence:
        logger.info("data %s: %s", found.name, found.licence)
    return found


def content_digest(data: Dataset) -> str | None:
    """Compute the SHA-256 of the images and labels of a data set from the user.

    A run stores this value, so that a later start notices if the user has changed the data. If the
    images stay in files, only some images are read, evenly spaced, because reading all images at
    each start would take too long.

    Returns:
        64 hex digits. None for a known data set, whose content cannot change.
    """
    if not (is_path(data.name) or is_own(data.name)):
        return None
    digest = hashlib.sha256()
    for split in (data.train, data.test):
        images, labels = split.images, split.labels
        if not isinstance(images, np.ndarray):
            images = images[np.linspace(0, len(images) - 1, _NUM_PROBES).astype(int)]
        for array in (images, labels):
            digest.update(f"{array.dtype} {array.shape}\n".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
