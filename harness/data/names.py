"""Names of the data sets, in a module without torch. harness/data/catalogue.py loads them.

A name stands for a loader: a function (files: DataFiles, **options) that returns a Dataset. The
function is written as "module:function", and is imported only when it is used. To add a data set,
add its function and one entry in this module.
"""

from collections.abc import Mapping

DATASETS: Mapping[str, str] = {
    "mnist5k": "harness.data.embedded:mnist5k",
    "digits": "harness.data.embedded:digits",
    "mnist": "harness.data.idx:mnist",
    "fashion_mnist": "harness.data.idx:fashion_mnist",
    "cifar10": "harness.data.cifar:cifar10",
    "cifar100": "harness.data.cifar:cifar100",
    "emoji": "harness.data.emoji:emoji",
    "openclipart": "harness.data.openclipart:openclipart",
}

# Loaders of paths. `data=PATH` names a file if the path ends in .npz, otherwise a folder.
NPZ = "harness.data.npz:npz"
FOLDER = "harness.data.folder:image_folder"


def loaders(data: str) -> Mapping[str, str]:
    """Return the known names with their loaders. If `data` is a path, add its loader.

    Args:
        data: a value of the key `data`.
    """
    if not is_path(data):
        return DATASETS
    return {**DATASETS, data: NPZ if data.endswith(".npz") else FOLDER}


def is_path(data: str) -> bool:
    """Return whether a value of the key `data` is a path, and not a name.

    A path has a slash or ends in .npz, so that a wrong name is not taken for a folder.
    """
    return "/" in data or data.endswith(".npz")
