"""Choose a folder for Numba's compiled kernels if Numba cannot write to its default folders.

Numba stores compiled code in the folder of the source, or else in the user's cache folder. If it
can write to neither, this module sets NUMBA_CACHE_DIR to a private temporary folder. If the user
has no home, Numba must not use its cache folder, because it would make a folder named `~`. Numba
reads the variable when Numba is imported. So the package `harness` calls this module first, in
drivers and in actors.
"""

import os
import stat
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"


def set_kernel_cache() -> None:
    """Set NUMBA_CACHE_DIR if it is not set and Numba cannot write to its default folders."""
    if VARIABLE in os.environ:
        return
    home = os.path.expanduser("~")  # noqa: PTH111  # Path.home() fails if there is no home
    user = os.environ.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home != "~" else None)
    found = find_spec("supsup_core")
    own = (found.submodule_search_locations if found else None) or []
    if any(_can_write(Path(folder)) for folder in (*own, *([user] if user else []))):
        return
    with suppress(OSError):  # if no folder can be made, each process compiles the kernels again
        os.environ[VARIABLE] = str(_private_folder())


def _can_write(folder: Path) -> bool:
    """Return whether this process can make files in a folder. The folder need not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    # os.access is not enough: for root it always says yes, but root cannot write to /proc.
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _private_folder() -> Path:
    """Make a temporary folder that later processes of this user find again.

    Numba loads compiled code and pickles from its folder. So a folder that another user made, or
    can write to, is not used. A new folder with a random name is made instead. Later processes do
    not find this new folder.

    Raises:
        OSError: no temporary folder can be made.
    """
    parent = tempfile.gettempdir()
    folder = Path(parent, f"supermask-scaling-{os.getuid()}")
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if found.st_mode == stat.S_IFDIR | 0o700 and found.st_uid == os.getuid():
        return folder
    return Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=parent))
