"""Create and open the Zarr arrays of a mask store, and write its weights and inputs.

Only harness/storage writes to a store. The rows of masks are written by harness/storage/chunks.py.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import ObjectStore

from harness.errors import UserError
from harness.places.places import Place
from harness.places.reading import LARGEST_JSON, check_regular, read_json
from harness.storage.chunks import FILL, chunk_rows
from harness.storage.content import Rows, StoreContent

# zarr applies these codecs after its codec "bytes". None of them compresses, because masks of
# density 1/2 cannot be compressed.
CODECS = (Crc32cCodec(),)

GROUP = "zarr.json"  # metadata file of a group or an array


def store_exists(run_dir: Place) -> bool:
    """Return whether a run has a mask store. The store may be damaged."""
    root = run_dir / "masks.zarr"
    return (root if isinstance(root, Path) else root / GROUP).exists()


def open_group(path: Place, mode: Any) -> zarr.Group:
    """Open a Zarr group.

    Args:
        path: folder of the group.
        mode: "r" to read, "r+" to read and write.

    Raises:
        FileNotFoundError, ValueError: the folder holds no group.
    """
    if isinstance(path, Path):
        store: Any = path
    else:
        if mode != "r":
            path.bucket.before_write()
        store = ObjectStore(path.store(), read_only=mode == "r")
    return zarr.open_group(store, mode=mode, zarr_format=3, use_consolidated=False)


def open_masks(path: Place) -> tuple[zarr.Group, zarr.Array[Any]]:
    """Open the group of a store and its array `masks` for reading.

    Args:
        path: the folder masks.zarr.

    Raises:
        UserError: the folder is missing, has no group with an array `masks`, or contains a link or
            a FIFO in place of a regular file.
    """
    if not path.is_dir():
        raise UserError(
            f"{path.parent} must be the directory of a run, got no masks.zarr in it: check run_dir"
        )
    if isinstance(path, Path):
        _check_files(path)
    try:
        for file in (path / GROUP, path / "masks" / GROUP):
            read_json(file)  # zarr sets no limits to the size and the depth of metadata
        root = open_group(path, "r")
        masks = cast(zarr.Array[Any], root["masks"])
        masks.shape, masks.chunks  # noqa: B018 - a group has neither
    except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError) as error:
        raise UserError(
            f"{path} must be a Zarr group with an array masks, got no readable group with this "
            "array: restore masks.zarr, or choose another run_dir"
        ) from error
    return root, masks


def _check_files(path: Path) -> None:
    """Check all files that zarr reads: every file of the store except the chunks of `masks`.

    Raises:
        UserError: a path is no regular file (for example, a link or a FIFO), or a metadata file is
            too large.
    """
    for folder, folders, names in os.walk(path):
        here = Path(folder)
        if here == path / "masks":
            folders[:] = [name for name in folders if name != "c"]
        links = [name for name in folders if (here / name).is_symlink()]
        for name in [*links, *names]:
            found = (here / name).lstat()
            check_regular(here / name, found.st_mode)
            if name == GROUP and found.st_size > LARGEST_JSON:
                raise UserError(
                    f"{here / name} must have at most {LARGEST_JSON} bytes, got {found.st_size}: "
                    "restore masks.zarr, or choose another run_dir"
                )


def create_group(store: Any, content: StoreContent, attributes: Mapping[str, Any]) -> zarr.Group:
    """Create the group of a store, and its arrays `masks` and `shared/...` without chunk files.

    Args:
        store: a folder that does not exist, or a store of zarr.
        content: the content of the store, except the masks.
        attributes: a mapping from name to JSON value, with all attributes of the group.
    """
    root = zarr.create_group(store, zarr_format=3, attributes=dict(attributes))
    create_masks(root, content.capacity, content.layout.row_bytes)
    spec = content.shared
    for name in spec.shapes:
        shape, kind = spec.stored(name)
        root.create_array(
            f"shared/{name}",
            shape=(len(spec.after_task), *shape),
            dtype=kind.name,
            chunks=(1, *shape),
            compressors=CODECS,
        )
    return root


def create_masks(root: zarr.Group, capacity: int, row_bytes: int) -> zarr.Array[Any]:
    """Create the array `masks` of shape (capacity, row_bytes). No chunk file is written."""
    return root.create_array(
        "masks",
        shape=(capacity, row_bytes),
        dtype="uint8",
        chunks=(chunk_rows(row_bytes), row_bytes),
        fill_value=FILL,
        compressors=CODECS,
    )


def write_fixed(root: zarr.Group, content: StoreContent) -> None:
    """Write the arrays `weights/...` and `inputs/...`. Existing arrays are replaced."""
    for name, rows in content.fixed_rows().items():
        array = create_fixed(root, name, rows)
        for part in parts(rows.shape[0], array.chunks[0]):
            array[part] = rows[part]


def create_fixed(root: zarr.Group, name: str, rows: Rows) -> zarr.Array[Any]:
    """Create an array for some rows, but do not write the rows. Replace an existing array."""
    num = min(rows.shape[0], chunk_rows(rows[:1].nbytes))
    return root.create_array(
        name,
        shape=rows.shape,
        dtype=rows.dtype,
        chunks=(num, *rows.shape[1:]),
        compressors=CODECS,
        # By default zarr omits chunks of fill values; verify would report them as lost.
        config={"write_empty_chunks": True},
        overwrite=True,
    )


def parts(num_rows: int, at_once: int) -> Iterator[slice]:
    """Divide rows into slices of at most `at_once` rows, so that one slice fits into memory."""
    return (slice(i, min(i + at_once, num_rows)) for i in range(0, num_rows, at_once))
