"""One driver a run directory: a lock that says who holds it."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import UserError


@contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Keep every other driver out of a run directory.

    The kernel frees the lock however the process ends. The file `lock` stays: removing it
    would let a third process lock a new file beside the second that waits on the old.

    Args:
        run_dir: of the run; made if missing.

    Raises:
        UserError: another process has it: which, where and since when.
    """
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
