"""The lock of a run directory. Only one driver at a time can have the lock.

The lock file names the driver that has the lock.
"""

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

    On a disk, the kernel keeps the lock, and releases it when the process ends or crashes. In
    object storage, the lock is a lease (harness/storage/lease.py).

    If the context ends with a UserError, this function removes the lock file and the folders that
    it has made. A folder with other files stays.

    Args:
        run_dir: the run directory; created if missing.

    Raises:
        UserError: another process has the lock, or the path `lock` is no regular file (for example,
            a link). In the first case, the message names the process, its host and the time when it
            took the lock.
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
            file.truncate(0)  # a free lock must not name a process


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
            who = "another process"  # which may not have written its number into the file yet
            if signed is not None:
                host, pid, since = signed
                who = f"process {pid} on host {host} since {since}"
            file.close()
            raise UserError(
                f"run directory {path.parent} is in use by {who}: "
                "wait for it, stop it, or choose another run_dir"
            ) from error
        # Another process that failed to start may have removed the file after this process opened
        # it. A lock on a removed file does not stop other processes.
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
    """Remove the lock file and the folders that this process made, if they have no other files.

    Args:
        made: the lock file, if this process made it, and then the folders, the innermost first.
    """
    with suppress(OSError):  # a folder that is not empty stays, and so do the folders around it
        for path in made:
            path.rmdir() if path.is_dir() else path.unlink()


def _signature(path: Path) -> tuple[str, int, str] | None:
    """Read which process has written its number into a lock file.

    Returns:
        (host, process number, time when the process took the lock); None if the file has no such
        values, because the lock is free or was taken just now.

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
    """The process that a run's lock file names.

    Attributes:
        host: name of the host that the process runs on.
        pid: number of the process on that host.
        since: time when the process took the lock, ISO 8601, UTC.
        alive: whether the process still has the lock; None if this host cannot know this, for
            example because the process runs on another host.
    """

    host: str
    pid: int
    since: str
    alive: bool | None


def driver_state(holder: Holder | None, is_whole: bool) -> str:
    """Return the state of a run or a search: live, complete, stopped, dead or unknown.

    It is live if its driver works on it. It is complete if all its work is done. It is stopped if
    the lock file names no process. It is dead if its driver was killed: the lock file still names
    the driver, but no process has the lock. It is unknown if the lock file names a process of
    another host, because only that host can check this process.

    Args:
        holder: the process that the lock file names; None if it names no process.
        is_whole: whether all work is done.
    """
    if holder is not None and holder.alive:
        return "live"
    if is_whole:
        return "complete"
    if holder is None:
        return "stopped"
    return "dead" if holder.alive is False else "unknown"


def lock_holder(run_dir: Path) -> Holder | None:
    """Read which process has the lock of a run, without taking the lock.

    If this function took the lock for a moment, even as a shared lock, a driver that starts at that
    moment could fail. So the function only reads the lock file and the kernel's list of locks.

    Args:
        run_dir: the run directory, which may have no lock.

    Returns:
        The process that the lock file names, which may have ended; None if the file names no
        process.

    Raises:
        UserError: the path `lock` is no regular file (for example, a link or a folder).
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
    """Look up in the kernel's list of locks whether a process of this host has locked a file.

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
