"""Join a Ray cluster, or start Ray on this machine: without messages, and with one-line errors."""

import logging
import os
import signal
import socket
import threading
from typing import Any

from harness.errors import UserError

SECONDS_TO_CONNECT = 5.0


def start_ray() -> tuple[Any, bool]:
    """Join the cluster to which this machine belongs, or start Ray on this machine.

    Ray finds the cluster by RAY_ADDRESS, or because `ray start` ran on this machine. The files of
    cluster/ set RAY_ADDRESS=auto on the head. So a job on the head joins the cluster or fails. A
    new Ray would train on the head alone.

    Returns:
        The package `ray`, and whether this call connected to Ray. If so, `ray.shutdown` must end
        the connection.

    Raises:
        UserError: nothing answers at RAY_ADDRESS, or Ray did not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Actors without a GPU keep their CUDA_VISIBLE_DEVICES, and Ray does not warn about that.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray  # here, because the import takes half a second and the serial executor needs no Ray

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
            f"Ray{where} did not start: {reason}: fix the cause, or set executor=serial"
        ) from error
    # Ray installs signal handlers of its own. Its SIGTERM handler aborts and prints a C++ stack.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)
    return ray, True


def _check_address(address: str) -> None:
    """Refuse a RAY_ADDRESS at which nothing listens, because Ray would try it for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "://" in host:
        return  # Ray itself understands addresses such as auto, local and ray://...
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_CONNECT).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(
            f"RAY_ADDRESS must be host:port of a running cluster, got {address} ({error}): "
            "unset RAY_ADDRESS, or start that cluster"
        ) from error


def _environment() -> dict[str, Any]:
    """Return the runtime environment of workers: each actor computes with one thread.

    Ray sets these variables before any library of the worker reads them.
    """
    return {"env_vars": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}}
