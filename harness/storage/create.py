"""Create an empty mask store, so that a crash leaves either the whole store or none."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from harness.errors import UserError
from harness.places.durable import fsync, fsync_tree
from harness.places.places import Place, remove_tree
from harness.storage.arrays import GROUP, create_group, store_exists, write_fixed
from harness.storage.attributes import group_attributes
from harness.storage.content import StoreContent
from harness.tables.files import table_files

if TYPE_CHECKING:
    from harness.places.objects import ObjectPath


def create_store(run_dir: Place, content: StoreContent) -> None:
    """Create an empty store. After a crash, the run has either the whole store or none.

    Args:
        run_dir: folder for `masks.zarr` and `log`; created if missing.
        content: the content of the store, except the masks.

    Raises:
        FileExistsError: the run already has a store.
        UserError: the run has a log, but no store.
        ValueError: `content.attributes` has a name that the layout sets.
    """
    _check_absent(run_dir)
    attributes = group_attributes(content)

    def build(folder: Path) -> None:
        write_fixed(create_group(folder, content, attributes), content)

    if isinstance(run_dir, Path):
        _create_on_disk(run_dir, build)
    else:
        _create_in_bucket(run_dir, build)


def _check_absent(run_dir: Place) -> None:
    if store_exists(run_dir):
        raise FileExistsError(f"{run_dir / 'masks.zarr'} exists")
    if table_files(run_dir / "log"):
        raise UserError(
            f"{run_dir} has the log of a run but not its masks.zarr: "
            "restore masks.zarr, or choose another run_dir"
        )


def _create_on_disk(run_dir: Path, build: Callable[[Path], None]) -> None:
    """Build a store in a temporary folder, and rename the folder when the store is on disk."""
    partial = run_dir / ".masks.zarr.partial"
    if partial.is_dir() and not partial.is_symlink():
        remove_tree(partial)  # a process that crashed has left it
    else:
        partial.unlink(missing_ok=True)
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        build(partial)
    except Exception:  # for example, the family cannot make a task: leave no partial store
        remove_tree(partial)
        raise
    fsync_tree(partial)
    (run_dir / "log").mkdir(exist_ok=True)
    partial.rename(run_dir / "masks.zarr")
    fsync(run_dir)


def _create_in_bucket(run_dir: "ObjectPath", build: Callable[[Path], None]) -> None:
    """Build a store in a temporary folder, and upload it.

    Objects cannot be renamed. Instead, a store exists when its file zarr.json exists, and this file
    is uploaded last.
    """
    remove_tree(run_dir / "masks.zarr")  # a process that crashed may have left it
    with TemporaryDirectory() as built:
        build(Path(built))
        (run_dir / "masks.zarr").upload(Path(built), last=GROUP)
