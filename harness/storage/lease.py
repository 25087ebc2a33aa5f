"""A lease on a run directory in object storage. Only one driver can have the lease at a time.

The lease is an object in the run directory. In object storage, no kernel releases the lock of a
process that died. So the driver that has the lease renews it every 5 s: it replaces the object, if
the object is still the version that this driver wrote last. Another driver may take the lease if
the object does not change for 97 s: it replaces the object, if the object still has not changed.
Each driver measures time only with its own clock.

The 97 s are the sum of three times. Within 20 s after a renewal, a driver may begin a write without
another renewal. After 75 more seconds, such a write can no longer reach the server. The last 2 s
are a margin. If a machine sleeps for longer than 20 s, its driver renews the lease before the next
write. If another driver has taken the lease, this renewal fails, and the first driver writes
nothing more.
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
from harness.places.bucket import LONGEST_WRITE
from harness.places.objects import ObjectPath
from harness.places.reading import parse_json

logger = logging.getLogger("harness")

RENEWED_EVERY = 5.0
HELD_UNRENEWED = 20.0
"""A driver may begin writes for this many seconds after a renewal."""
LEASE = HELD_UNRENEWED + LONGEST_WRITE + 2.0
"""Another driver may take the lease if the object has not changed for this many seconds."""
_LOOK_EVERY = 1.0


def _now() -> float:
    """Read a clock, in seconds. If possible, the clock also runs while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class Lease:
    """A driver's lease on a run directory.

    Args:
        path: path of the object `lock` in the run directory.
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
        """Take a lease that no driver holds any more.

        Args:
            version: the version of the object to replace; None if no object exists.

        Returns:
            True if the lease is taken; False if another driver changed the object first.
        """
        with self._one_at_a_time:
            return self._replace(version)

    def renew(self) -> None:
        """Renew the lease.

        Raises:
            UserError: another driver has the lease, or the server cannot be reached.
        """
        with self._one_at_a_time:
            if not self._lost:
                self._lost = not self._replace(self._version)
            if self._lost:
                raise UserError(
                    f"run directory {self._path.parent} is no longer locked by this driver: "
                    f"another process took or removed {self._path}; committed results are kept: "
                    "check that no other driver works on this run, then type the same command again"
                )

    def check(self) -> None:
        """Check that a write may begin. Renew the lease if the last renewal is too long ago.

        Raises:
            UserError: the lease cannot be renewed; see renew.
        """
        if self._lost or _now() - self._renewed_at > HELD_UNRENEWED:
            self.renew()

    def keep(self, stopped: threading.Event) -> None:
        """Renew the lease every RENEWED_EVERY seconds, until `stopped` is set or the lease is lost.

        Errors are ignored, because the next write renews the lease too, and raises the error again.

        Args:
            stopped: event that ends the renewals.
        """
        while not stopped.wait(RENEWED_EVERY) and not self._lost:
            with suppress(UserError):
                self.renew()

    def release(self) -> None:
        """If this driver has the lease, free the lease, so that other drivers need not wait.

        If the request to the server fails, other drivers wait for LEASE seconds.
        """
        with self._one_at_a_time, suppress(UserError):
            if self._version is not None and not self._lost:
                self._path.write_over(b"", self._version)

    def _replace(self, version: dict[str, str] | None) -> bool:
        """Replace a version of the object, and return whether the replacement succeeded.

        If the server's answer to an earlier request was lost, this driver does not know the version
        that it wrote, and the next request fails. So if the object has the token of this lease, the
        request is tried once more with the version of the object.
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
    """Read the lock object.

    Returns:
        Two values: the holder and the version. The holder has the fields that the driver with the
        lease wrote; {} if no driver has the lease. The version is the version of the object; None
        if no object exists.
    """
    try:
        data, version = path.read_tagged()
    except FileNotFoundError:
        return {}, None
    try:
        holder = parse_json(data or b"{}")
    except ValueError:  # no driver wrote this: assume that an unknown process has the lock
        holder = None
    return holder if isinstance(holder, dict) else {"host": "?", "pid": "?"}, version


def _taken(directory: ObjectPath, lease: Lease) -> None:
    """Take the lease as soon as it is certain that no driver has it.

    Raises:
        UserError: another driver renews the lease.
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
                "run directory %s is locked by %s: checking whether this process is alive, which "
                "takes up to %.0f s",
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
    """Hold the lease on a run directory, and keep every other driver out.

    If this driver loses the lease, its later writes raise an error.

    Args:
        directory: the run directory. Every write to a path in it first checks the lease.

    Raises:
        UserError: another driver has the lease. The message names its process, its host and the
            time when it took the lease.
    """
    lease, stopped = Lease(directory / "lock"), threading.Event()
    renewing = threading.Thread(target=lease.keep, args=(stopped,), name="lease", daemon=True)
    try:
        _taken(directory, lease)
        directory.bucket.before_write = lease.check
        renewing.start()
        yield
    finally:
        stopped.set()
        if renewing.is_alive():
            renewing.join()
        lease.release()
