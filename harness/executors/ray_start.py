"""Join the Ray cluster of this machine, or start Ray here: quietly, and with one-line refusals."""

import logging
import os
import signal
import socket
import threading
from typing import Any

from harness.errors import UserError

SECONDS_TO_CONNECT = 5.0


def start_ray() -> tuple[Any, bool]:
    """Join the cluster this machine belongs to, or start Ray here, quietly.

    Returns:
        The package, and whether this call began what `ray.shutdown` would end.

    A cluster is found as Ray finds it: by RAY_ADDRESS, or because `ray start` ran
    on this machine.

    Raises:
        UserError: RAY_ADDRESS leads nowhere, or Ray would not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # and no warning about it
    import ray  # half a second that the serial executor need not wait

    if ray.is_initialized():
        return ray, False
    _check_address(os.environ.get("RAY_ADDRESS", ""))
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=_environment(),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        address = os.environ.get("RAY_ADDRESS")
        where = f" (RAY_ADDRESS={address})" if address else ""
        raise UserError(
            f"Ray{where} did not start: {reason}: mend that, or set executor=serial"
        ) from error
    # Ray puts handlers of its own in place: one aborts, with a C++ stack on the screen.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)
    return ray, True


def _check_address(address: str) -> None:
    """Refuse a RAY_ADDRESS that nobody listens at: Ray would try it for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "://" in host:  # auto, local, ray://...: Ray's own
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_CONNECT).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(
            f"RAY_ADDRESS must be host:port of a cluster that runs, got {address} ({error}): "
            "unset it, or start that cluster"
        ) from error


def _environment() -> dict[str, Any]:
    """One thread an actor, set before any library of the worker reads it."""
    return {"env_vars": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}}
