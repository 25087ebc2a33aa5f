"""Read a data set from a .npz file, as numpy.savez writes it. No code in the file can run."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from harness.data.arrays import ARRAYS, dataset_from_arrays
from harness.data.dataset import Dataset
from harness.data.files import DataFiles
from harness.errors import UserError, one_line
from harness.places.machine import memory_bytes
from harness.places.reading import open_regular

_FAILURES = (
    *(OSError, EOFError, ValueError, KeyError, RuntimeError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, MemoryError),
)


def npz(files: DataFiles) -> Dataset:
    """Load the four arrays of `data=PATH.npz`; see dataset_from_arrays for their shapes and types.

    Raises:
        UserError: the file cannot be read, its arrays are too large for this machine's memory, or
            dataset_from_arrays refuses them.
    """
    assert files.path is not None
    path = files.path.expanduser()
    with _readable_errors(path), open_regular(path, follow=True) as file:
        found = np.load(file, allow_pickle=False)
        if not isinstance(found, np.lib.npyio.NpzFile):
            raise ValueError("the file has one array without a name")
        with found:
            assert found.zip is not None
            present = [name for name in ARRAYS if name in found]
            _check_sizes(path, found.zip, present)
            arrays = {name: found[name] for name in present}
    return dataset_from_arrays(str(files.path), arrays)


@contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(
            f"data={path} must be an existing file, got none: check the path, or use the embedded "
            "data=mnist5k"
        ) from error
    except _FAILURES as error:
        raise UserError(
            f"data={path} must be a .npz file of plain arrays, got {one_line(error)}: write it by "
            f"np.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)"
        ) from error


def _check_sizes(path: Path, archive: zipfile.ZipFile, names: list[str]) -> None:
    """Refuse arrays that are larger than half of the memory, or larger than their file says.

    A small file can unpack to any number of bytes. zipfile reads at most `file_size` bytes, but
    NumPy allocates the shape in the array's header before it reads.
    """
    total = 0
    for name in names:
        member = f"{name}.npy" if f"{name}.npy" in archive.namelist() else name
        with archive.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
            if version[0] not in read:
                raise ValueError(f"{name} has the unknown format {version}")
            shape, _, dtype = read[version[0]](stream)
            num_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if stream.tell() + num_bytes != archive.getinfo(member).file_size:
                raise ValueError(f"{name} has another size than its header says")
        total += num_bytes
    if total > memory_bytes() // 2:
        raise UserError(
            f"data={path} must fit into half of this machine's memory "
            f"({memory_bytes() / 2e9:.1f} GB), got {total / 1e9:.1f} GB: store uint8, or fewer "
            "images"
        )
