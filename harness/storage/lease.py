"""One driver a run directory in object storage: a lease on an object that says who holds it.

No kernel frees a lock there. The holder replaces the object every few seconds, each time on the
condition that it is still the version it wrote last. Whoever finds one version there for the
length of a lease, by his own clock, may replace that very version and has it then. A holder
whose last renewal lies so far back that a write begun now could arrive after that renews before
it writes; where another has the lease, it writes no more.
"""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from harness.errors import UserError
from harness.places.objects import LONGEST_WRITE, ObjectPath

logger = logging.getLogger("harness")

RENEWED_EVERY = 5.0
HELD_UNRENEWED = 20.0
"""Seconds after a renewal in which the holder may begin a write."""
LEASE = HELD_UNRENEWED + LONGEST_WRITE + 2.0
"""Seconds for which the object must not change before another may take it."""
_LOOK_EVERY = 1.0


def _now() -> float:
    """Seconds that go on while the machine sleeps, where the system has such a clock."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class Lease:
    """What a driver holds.

    Args:
        path: of the object.
    """

    def __init__(self, path: ObjectPath) -> None:
        self._path = path
        self._who = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "token": uuid4().hex,
        }
        self._renewals = 0
        self._renewed_at = 0.0
        self._version: dict[str, str] | None = None
        self._lost = False
        self._one_at_a_time = threading.Lock()

    def take(self, version: dict[str, str] | None) -> bool:
        """Take the lease that nobody has any more.

        Args:
            version: of the object, which must still be the one; None: there is none.

        Returns:
            whether this came first.
        """
        with self._one_at_a_time:
            return self._replace(version)

    def renew(self) -> None:
        """Renew the lease.

        Raises:
            UserError: another driver has it, or the server cannot be reached.
        """
        with self._one_at_a_time:
            if not self._lost:
                self._lost = not self._replace(self._version)
            if self._lost:
                raise UserError(
                    f"run directory {self._path.parent} is no longer this driver's: its lock "
                    f"{self._path} was taken over or removed; what is committed is kept"
                )

    def check(self) -> None:
        """See that a write may begin.

        Raises:
            UserError: as of renew.
        """
        if self._lost or _now() - self._renewed_at > HELD_UNRENEWED:
            self.renew()

    def keep(self, stopped: threading.Event) -> None:
        """Renew until told to stop; what goes wrong the next write will tell."""
        while not stopped.wait(RENEWED_EVERY) and not self._lost:
            with suppress(UserError):
                self.renew()

    def release(self) -> None:
        """Let others have it at once; where that fails, they wait for its end."""
        with self._one_at_a_time, suppress(UserError):
            if not self._lost:
                self._path.write_over(b"", self._version)

    def _replace(self, version: dict[str, str] | None) -> bool:
        """Write the object in place of a version, which may be one that this lease wrote unheard.

        A put whose answer was lost has been done, and the next then fails its condition.
        """
        for _ in range(2):
            began = _now()
            self._renewals += 1
            content = json.dumps(self._who | {"renewals": self._renewals}).encode()
            if written := self._path.write_over(content, version):
                self._version, self._renewed_at = written, began
                return True
            there, version = _look(self._path)
            if there.get("token") != self._who["token"]:
                break
        return False


def _look(path: ObjectPath) -> tuple[dict[str, Any], dict[str, str] | None]:
    """Who holds a lease, {} if nobody; and the version that says so, None if there is none."""
    try:
        data, version = path.read_tagged()
    except FileNotFoundError:
        return {}, None
    try:
        holder = json.loads(data or b"{}")
    except ValueError:  # something else: whoever put it there may hold it
        holder = None
    return holder if isinstance(holder, dict) else {"host": "?", "pid": "?"}, version


def _taken(directory: ObjectPath, lease: Lease) -> None:
    """Take the lease, as soon as it is known that nobody has it.

    Raises:
        UserError: another driver renews it.
    """
    seen: dict[str, str] | None = None
    since = 0.0
    while True:
        holder, version = _look(directory / "lock")
        who = f"process {holder.get('pid')} on host {holder.get('host')}"
        if not holder or (version == seen and _now() - since > LEASE):
            if lease.take(version):
                return
        elif seen is None:
            seen, since = version, _now()
            logger.warning(
                "run directory %s is locked by %s: seeing whether it is alive, which takes up to "
                "%.0f s",
                *(directory, who, LEASE),
            )
        elif version != seen:
            raise UserError(
                f"run directory {directory} is in use by {who} since {holder.get('since')}: "
                "wait for it, stop it, or choose another run_dir"
            )
        time.sleep(_LOOK_EVERY)


@contextmanager
def run_lease(directory: ObjectPath) -> Iterator[None]:
    """Keep every other driver out of a run directory, and this one too once it has lost it.

    Args:
        directory: of the run; every write below it is checked.

    Raises:
        UserError: another driver has it: which, where and since when.
    """
    lease, stopped = Lease(directory / "lock"), threading.Event()
    _taken(directory, lease)
    directory.bucket.before_write = lease.check
    renewing = threading.Thread(target=lease.keep, args=(stopped,), name="lease", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        stopped.set()
        renewing.join()
        lease.release()
