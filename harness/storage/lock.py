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
from typing import Any

from harness.errors import UserError
from harness.places.places import Place
from harness.places.reading import open_regular, read_json

_LARGEST_PID = 2**31 - 1


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
        UserError: another process has the lock; the message names its process, host and start. Or
            the file `lock` is a link, a folder or another thing that is no file.
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
        try:
            file.truncate(0)
            since = datetime.now(UTC).isoformat(timespec="seconds")
            own = {"host": socket.gethostname(), "pid": os.getpid(), "since": since}
            file.write(json.dumps(own).encode())
            yield
        except UserError:
            _remove(missing)
            raise
        finally:
            file.truncate(0)  # a free lock must not name a holder


def _locked(path: Path) -> Any:
    """Open and lock a file, without a buffer.

    Raises:
        UserError: another process has the lock, or the path is no regular file.
    """
    while True:
        file = open_regular(path, create=True, buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            signed = _signature(path)
            who = "another process"  # if the holder has not signed the file yet
            if signed is not None:
                host, pid, since = signed
                who = f"process {pid} on host {host} since {since}"
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


def _is_at(path: Path, file: Any) -> bool:
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


def _signature(path: Path) -> tuple[str, int, str] | None:
    """Read the host, the process and the time that are written in a lock.

    Returns:
        The values; None if the lock is free, or is taken but not signed yet.

    Raises:
        FileNotFoundError, UserError: see read_json.
    """
    try:
        signed = read_json(path)
        host, pid, since = str(signed["host"]), signed["pid"], str(signed["since"])
    except (ValueError, KeyError, TypeError):
        return None
    return (host, pid, since) if type(pid) is int and 0 < pid <= _LARGEST_PID else None


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
        UserError: the file `lock` is a link, a folder or another thing that is no file.
        OSError: the file cannot be read.
    """
    path = run_dir / "lock"
    try:
        signed, inode = _signature(path), path.lstat().st_ino
    except FileNotFoundError:
        return None
    if signed is None:
        return None
    host, pid, since = signed
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
