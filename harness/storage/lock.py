"""One driver per run directory: a lock that names its holder."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import UserError
from harness.places.places import Place


@contextmanager
def run_lock(run_dir: Place) -> Iterator[None]:
    """Keep every other driver out of a run directory.

    On a disk the kernel holds the lock, and frees it however the process ends. In object storage
    the lock is a lease (harness/storage/lease.py). The file `lock` is never removed.
    Otherwise one process could hold the lock of the removed file while another process locks a new
    file.

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
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            try:
                holder = json.loads(file.read())
                who = f"process {holder['pid']} on host {holder['host']} since {holder['since']}"
            except (ValueError, KeyError, TypeError):  # the holder has not signed the file yet
                who = "another process"
            raise UserError(
                f"run directory {run_dir} is in use by {who}: "
                "wait for it, stop it, or choose another run_dir"
            ) from error
        file.truncate(0)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        json.dump({"host": socket.gethostname(), "pid": os.getpid(), "since": since}, file)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)  # a free lock must not name a holder


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
