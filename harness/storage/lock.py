"""One driver per run directory: a lock that names its holder."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from harness.errors import UserError
from harness.places.places import Place


@contextmanager
def run_lock(run_dir: Place) -> Iterator[None]:
    """Keep every other driver out of a run directory.

    On a disk the kernel holds the lock, and frees it however the process ends. In object storage
    the lock is a lease (harness/storage/lease.py).

    If a UserError ends the work, the lock and the folders that this function made are removed
    again, unless the folders have other files.

    Args:
        run_dir: the run directory; created if missing.

    Raises:
        UserError: another process has the lock; the message names its process, host and start.
    """
    if not isinstance(run_dir, Path):
        from harness.storage.lease import run_lease

        with run_lease(run_dir):
            yield
        return
    path = run_dir / "lock"
    missing = [one for one in (path, run_dir, *run_dir.parents) if not one.exists()]
    run_dir.mkdir(parents=True, exist_ok=True)
    with _locked(path) as file:
        file.truncate(0)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        json.dump({"host": socket.gethostname(), "pid": os.getpid(), "since": since}, file)
        file.flush()
        try:
            yield
        except UserError:
            _remove(missing)
            raise
        finally:
            file.truncate(0)  # a free lock must not name a holder


def _locked(path: Path) -> TextIO:
    """Open and lock a file.

    Raises:
        UserError: another process has the lock.
    """
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            try:
                holder = json.loads(file.read())
                who = f"process {holder['pid']} on host {holder['host']} since {holder['since']}"
            except (ValueError, KeyError, TypeError):  # the holder has not signed the file yet
                who = "another process"
            file.close()
            raise UserError(
                f"run directory {path.parent} is in use by {who}: "
                "wait for it, stop it, or choose another run_dir"
            ) from error
        # A refused start may have removed the file after this process opened it. The lock of a
        # removed file keeps nobody out.
        if _is_at(path, file):
            return file
        file.close()


def _is_at(path: Path, file: TextIO) -> bool:
    """Return whether an open file is still the file at a path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _remove(made: Sequence[Path]) -> None:
    """Remove the lock and the folders that a refused start made, if no other file is in them.

    Args:
        made: the lock, if this start made it, then the folders from the innermost outwards.
    """
    with suppress(OSError):  # a folder that is not empty stays, and so do the folders around it
        for path in made:
            path.rmdir() if path.is_dir() else path.unlink()


@dataclass(frozen=True)
class Holder:
    """The process that signed a run's lock.

    Attributes:
        host: name of the host that the process runs on.
        pid: number of the process on that host.
        since: time when the process took the lock, ISO 8601, UTC.
        alive: whether the process still has the lock; None if this host cannot tell.
    """

    host: str
    pid: int
    since: str
    alive: bool | None


def lock_holder(run_dir: Path) -> Holder | None:
    """Read which process has the lock of a run, without touching the lock.

    If this function took the lock for a moment, even as a shared lock, a driver that starts at that
    moment could fail. So the function reads the signature and the kernel's list of locks.

    Args:
        run_dir: the run directory, which may have no lock.

    Returns:
        The process that signed the lock, which may have died; None if the lock is not signed.

    Raises:
        OSError: the file cannot be read.
    """
    path = run_dir / "lock"
    try:
        signed = json.loads(path.read_text(encoding="utf-8"))
        host, pid, since = str(signed["host"]), int(signed["pid"]), str(signed["since"])
        inode = path.stat().st_ino
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):  # free, or taken but not signed yet
        return None
    return Holder(host, pid, since, _has_lock(pid, inode) if host == socket.gethostname() else None)


def _has_lock(pid: int, inode: int) -> bool | None:
    """Look up in the kernel's list whether a process of this host has a file locked.

    Returns:
        Whether the process has the lock; None if the system has no /proc/locks.
    """
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return None
    # A line is "1: FLOCK  ADVISORY  WRITE 1234 fe:01:5678 0 EOF". On some file systems the device
    # number (fe:01) differs from the number in stat, so only process and inode are compared.
    found = (line.split() for line in lines)
    return any(
        "FLOCK" in words and words[-4] == str(pid) and words[-3].rpartition(":")[2] == str(inode)
        for words in found
        if len(words) >= 8
    )
