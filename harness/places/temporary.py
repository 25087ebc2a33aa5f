"""A folder for temporary files on a machine where only the run directory can be written."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.places.places import Place

FOLDER = "temporary"


@contextmanager
def temporary_files_in(run_dir: Place) -> Iterator[None]:
    """In a with block, let this process and its children write temporary files.

    If the system's folders for temporary files cannot be written, a folder in the run directory
    takes their place. Ray, Matplotlib and Python's `tempfile` find it by the variable TMPDIR. The
    folder is removed at the end of the block.

    Args:
        run_dir: the run directory. If it is in a bucket, nothing changes.
    """
    if _has_one() or not isinstance(run_dir, Path):
        yield
        return
    before, folder = os.environ.get("TMPDIR"), run_dir.absolute() / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        tempfile.tempdir = None  # Python's copy of the folder's name
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


def _has_one() -> bool:
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return False
    return True
