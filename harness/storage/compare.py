"""Compare a mask store with the store that its run would create now.

The configuration and the code determine everything in a store except the masks: the attributes,
the metadata of all arrays, the weights and the inputs of each task. So a run can
compute these values again and compare them. Checksums are not enough: a file that was copied from
another run has right checksums too.
"""

from collections.abc import Collection, Mapping
from typing import Any, cast

import numpy as np
import zarr
from zarr.storage import MemoryStore

from harness.errors import UserError
from harness.places.places import Place, relative
from harness.places.reading import read_json
from harness.storage.arrays import GROUP, create_fixed, create_group, open_masks, parts
from harness.storage.attributes import check_format, difference, group_attributes
from harness.storage.content import Rows, StoreContent


def check_store(run_dir: Place, content: StoreContent) -> None:
    """Check that a store, except for its masks, has the values that `create_store` would write.

    This function skips weights and inputs that cannot be read, because MaskStore.verify reports
    them. The inputs have one row per task. Only the first and the last row are compared. They are
    enough, because both differ if the code of the family has changed. Making all rows would take as
    long as a large part of the training.

    Args:
        run_dir: the run directory; its files are only read.
        content: the content with which the run would create the store now. The attributes
            `versions` and `config_hash` may differ, because their stored values are those of the
            first start of the run.

    Raises:
        UserError: the run has no store, the store has an unknown format, or a value differs. The
            message names the first difference.
    """
    path = run_dir / "masks.zarr"
    root, masks = open_masks(path)
    stored = dict(root.attrs)
    check_format(path, stored)
    wanted = group_attributes(content)
    _check_code(stored, wanted)
    _check_data(stored, wanted)
    _refuse(
        difference(stored, wanted, but=("versions", "config_hash")), path / GROUP, run_dir=run_dir
    )
    expected = create_group(MemoryStore(), content, wanted)
    _refuse(_changed(masks, expected["masks"]), path / "masks" / GROUP, run_dir=run_dir)
    fixed = content.fixed_rows()
    together = [f"shared/{name}" for name in content.shared.shapes]
    _check_names(path, (*fixed, *together))
    for name in together:
        _check_shared(run_dir, root, name, expected[name])
    for name, rows in fixed.items():
        _check_fixed(run_dir, root, name, expected, rows)


def _check_shared(run_dir: Place, root: zarr.Group, name: str, expected: Any) -> None:
    """Refuse a shared array without readable metadata, or with metadata that differ."""
    file = run_dir / "masks.zarr" / name / GROUP
    array = _readable(root, run_dir / "masks.zarr", name)
    if array is None:
        raise UserError(
            f"{file} must be the metadata of an array, got no readable file: "
            "restore the file, or choose another run_dir"
        )
    _refuse(_changed(array, expected), file, run_dir=run_dir)


def _check_fixed(
    run_dir: Place, root: zarr.Group, name: str, expected: zarr.Group, rows: Rows
) -> None:
    """Refuse an array of weights or inputs whose metadata or values differ.

    Args:
        run_dir: the run directory.
        root: the group of the store.
        name: the name of the array, such as weights/layer1.
        expected: a group in which this function creates the array that the store should have.
        rows: the values that the array should have.
    """
    path = run_dir / "masks.zarr" / name
    array = _readable(root, run_dir / "masks.zarr", name)
    if array is None:
        return
    _refuse(_changed(array, create_fixed(expected, name, rows)), path / GROUP, run_dir=run_dir)
    if not _same(array, rows, ends_only=name.startswith("inputs/")):
        raise UserError(
            f"{path} must have the values that the configuration of this run gives, got "
            f"other values: restore masks.zarr/{name}, or choose another run_dir if the code "
            "of the network or of the family has changed"
        )


def _check_code(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse own code that differs from the code with which the run began."""
    there, here = stored.get("code"), wanted.get("code", {})
    if isinstance(there, dict) and there.keys() == here.keys():
        for kind, digest in here.items():
            if there[kind] != digest:
                raise UserError(
                    f"{kind}={wanted.get(kind)} must be the code with which this run began, got "
                    "changed files: restore the files, or choose another run_dir"
                )


def _check_data(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse data of the user that differ from the data with which the run began."""
    there, here = (one.get("data_sha256") for one in (stored, wanted))
    if there and here and there != here:
        raise UserError(
            f"data={wanted.get('data')} must be the data with which this run began, got changed "
            "images or labels: restore the files, or choose another run_dir"
        )


def _refuse(found: str | None, file: Place, *, run_dir: Place) -> None:
    if found:
        raise UserError(
            f"{file} must have {found}: restore {relative(file, run_dir)} and config.yaml, "
            "or choose another run_dir"
        )


def _changed(stored: Any, expected: Any) -> str | None:
    """Return the first difference between the metadata of two arrays; None if they agree.

    zarr parses the metadata first, because its versions write the same metadata in different ways.
    """
    return difference(stored.metadata.to_dict(), expected.metadata.to_dict())


def _check_names(path: Place, fixed: Collection[str]) -> None:
    """Refuse arrays of weights or inputs, and shared arrays, that this run would not create."""
    for group in ("weights", "inputs", "shared"):
        for folder in (path / group).glob("*"):
            if folder.is_dir() and f"{group}/{folder.name}" not in fixed:
                raise UserError(
                    f"{path / group} must have the arrays of this run only, got {folder.name}: "
                    f"move {folder.name} elsewhere, or choose another run_dir"
                )


def _readable(root: zarr.Group, path: Place, name: str) -> zarr.Array[Any] | None:
    """Open an array of weights or inputs. Return None if its metadata cannot be read."""
    try:
        read_json(path / name / GROUP)  # zarr sets no limits to the metadata
        return cast(zarr.Array[Any], root[name])
    except UserError:
        raise
    except Exception:  # zarr raises many types of errors for unreadable bytes
        return None


def _same(array: zarr.Array[Any], rows: Rows, *, ends_only: bool) -> bool:
    """Return whether an array has the bytes of `rows`. Parts that cannot be read count as equal.

    If `ends_only` is true, only the first and the last row are compared.
    """
    if array.nchunks_initialized < array.nchunks:  # zarr reads missing chunks as 0
        return True
    num_rows = rows.shape[0]
    ends = (slice(0, 1), slice(num_rows - 1, num_rows))
    for part in ends if ends_only else parts(num_rows, array.chunks[0]):
        wanted = np.ascontiguousarray(rows[part])
        try:
            stored = np.asarray(array[part])
        except Exception:  # zarr raises many types of errors for damaged bytes
            continue
        if stored.tobytes() != wanted.tobytes():
            return False
    return True
