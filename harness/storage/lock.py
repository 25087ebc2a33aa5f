"""One driver a run directory: a lock that says who holds it."""

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

    In object storage by a lease (harness/storage/lease.py), on a disk by the kernel.
    The kernel frees the lock however the process ends. The file `lock` stays: removing it
    would let a third process lock a new file beside the second that waits on the old.

    Args:
        run_dir: of the run; made if missing.

    Raises:
        UserError: another process has it: which, where and since when.
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
            except (ValueError, KeyError, TypeError):  # it has the lock, but has not signed yet
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
            file.truncate(0)  # nobody's name is on a lock that is free


@dataclass(frozen=True)
class Holder:
    """Who signed a run's lock.

    Attributes:
        host: its name.
        pid: of the process there.
        since: ISO 8601, UTC.
        alive: whether it still has the lock; None where this host cannot tell.
    """

    host: str
    pid: int
    since: str
    alive: bool | None


def lock_holder(run_dir: Path) -> Holder | None:
    """Who has the lock of a run, told without touching it.

    To try the lock, even a shared one, could make a driver that starts in that instant fail;
    so this reads the signature, and the kernel's own list of locks.

    Args:
        run_dir: of the run; may have no lock.

    Returns:
        The signer, who may have died; None where nobody has signed.

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
    except (ValueError, KeyError, TypeError):  # free, or taken this instant
        return None
    return Holder(host, pid, since, _has_lock(pid, inode) if host == socket.gethostname() else None)


def _has_lock(pid: int, inode: int) -> bool | None:
    """Whether a process of this host has a file locked, by the kernel's list."""
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:  # no Linux
        return None
    # "1: FLOCK  ADVISORY  WRITE 1234 fe:01:5678 0 EOF": the devices' numbers differ from those of
    # stat on some file systems, so process and inode decide.
    found = (line.split() for line in lines)
    return any(
        "FLOCK" in words and words[-4] == str(pid) and words[-3].rpartition(":")[2] == str(inode)
        for words in found
        if len(words) >= 8
    )
