"""Join a Ray cluster, or start Ray on this machine.

The messages that Ray itself prints are suppressed, and each error is one line.
"""

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.executors.protocol import T
from harness.places.secret import make_secret
from harness.places.stderr import stderr_held_back

logger = logging.getLogger(__name__)

SECONDS_OF_SILENCE = 30.0  # after this time, a log line says that no actor or task has started
SECONDS_TO_CONNECT = 10.0  # limit for connecting; reading the first answer has the same limit

# A client begins every HTTP/2 connection with these bytes: the preface, and an empty SETTINGS
# frame. Ray's servers use gRPC, which is based on HTTP/2. Such a server answers with a SETTINGS
# frame.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_TYPE_OF_FRAME, _SETTINGS = 3, 4  # index of a frame's type byte; the type of SETTINGS


def start_ray(otherwise: str = "") -> tuple[Any, bool]:
    """Join the cluster to which this machine belongs. If there is none, start Ray on this machine.

    Ray finds the cluster by RAY_ADDRESS, or because `ray start` ran on this machine. The files in
    cluster/ set RAY_ADDRESS=auto on the head machine. With this value, a command on the head
    machine either joins the cluster or fails. Without this value, a command might start a second
    Ray, and train on the head machine only.

    Args:
        otherwise: text at the end of an error's advice, which says what the user can do instead of
            starting Ray. Example: ", or set executor=serial".

    Returns:
        Two values: the package `ray`, and whether this call has connected to Ray. If true, the
        caller must end the connection with `ray.shutdown`. If false, this process was connected to
        Ray before the call.

    Raises:
        UserError: no Ray answers at the cluster's address, or Ray did not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # With "0", actors without a GPU keep their CUDA_VISIBLE_DEVICES, and Ray prints no warning.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray  # here, because the import takes half a second and the serial executor needs no Ray
    from ray._private.services import canonicalize_bootstrap_address

    if ray.is_initialized():
        return ray, False
    with _explained(otherwise):
        if "://" not in _given():  # ray://HOST:PORT is another kind of server
            # With None, Ray reads the address from the environment. Its annotation lacks None.
            address = canonicalize_bootstrap_address(None)  # type: ignore[arg-type]
            if address is None:
                _make_token(otherwise)
            else:
                _check_address(address)
        with _own_handler_of_sigterm(), stderr_held_back():
            ray.init(
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env=_environment(),
            )
    return ray, True


@contextmanager
def _own_handler_of_sigterm() -> Iterator[None]:
    """Keep this process's handler of SIGTERM while Ray starts.

    Ray installs two handlers in Python, which end the process with another exit code. Then Ray
    installs a handler in C++, which prints a stack and aborts.
    """
    from ray._private import utils

    install, own = utils.set_sigterm_handler, signal.getsignal(signal.SIGTERM)
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = install
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, own)


def is_alone(ray: Any) -> bool:
    """Return whether a started Ray consists of this machine alone, and cannot grow."""
    here = ray.get_runtime_context().get_node_id()
    nodes = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    return nodes == {here} and "max_cpus" not in ray.cluster_resources()


def call_on(ray: Any, cpus: float, gpus: float, function: Callable[..., T], *arguments: Any) -> T:
    """Call a function on a machine of the cluster that has free CPUs and GPUs.

    If this machine is the whole cluster and `gpus` is 0, this process calls the function. Otherwise
    Ray calls the function in another process.

    Args:
        ray: the package `ray`, started.
        cpus: number of CPUs that Ray reserves for the function.
        gpus: number of GPUs that Ray reserves for the function.
        function: the function.
        arguments: the function's arguments.
    """
    if is_alone(ray) and not gpus:
        return function(*arguments)
    task = ray.remote(num_cpus=cpus, num_gpus=gpus)(lambda: function(*arguments)).remote()
    ready, _ = ray.wait([task], timeout=SECONDS_OF_SILENCE)
    if not ready:
        logger.warning("waiting for Ray to start a task: the cluster may be busy, or still growing")
    found: T = ray.get(task)
    return found


def _given() -> str:
    return os.environ.get("RAY_ADDRESS", "")


@contextmanager
def _explained(otherwise: str) -> Iterator[None]:
    """Turn any error of Ray's start into a UserError with one line.

    Ray raises many types of errors, even the base class Exception.
    """
    where = f" (RAY_ADDRESS={_given()})" if _given() else ""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if any("AuthenticationError" in f"{type(one).__name__}: {one}" for one in _causes(error)):
            raise UserError(
                f"Ray{where} must get the token of its cluster, got another token or no token: set "
                "RAY_AUTH_MODE=token, and check that ~/.ray/auth_token has the token of the cluster"
            ) from error
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        advice = "fix the cause"
        if isinstance(error, OSError) and not isinstance(error, ConnectionError):
            advice = "set RAY_TMPDIR to a folder with a short path that you can write"
        raise UserError(f"Ray{where} did not start: {reason}: {advice}{otherwise}") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _check_address(address: str) -> None:
    """Raise an error if no gRPC server answers at an address.

    Without this check, Ray would try the address for minutes.

    Args:
        address: host:port.

    Raises:
        UserError: no program listens at the address, or the program is not a gRPC server.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_CONNECT) as server:
            if os.environ.get("RAY_USE_TLS", "0") in ("0", "false"):
                server.sendall(_HELLO)
                if server.recv(9)[_TYPE_OF_FRAME:][:1] != bytes((_SETTINGS,)):
                    raise OSError("another program answers, not Ray")
    except (OSError, OverflowError, UnicodeError) as error:
        if _given() in ("", "auto"):
            raise UserError(
                f"the Ray cluster of this machine does not answer at {address} ({error}): type "
                "`ray stop`, or set RAY_ADDRESS=local to start another Ray"
            ) from error
        raise UserError(
            f"RAY_ADDRESS must be host:port of a running cluster, got {_given()} ({error}): "
            "unset RAY_ADDRESS, or start that cluster"
        ) from error


def _make_token(otherwise: str) -> None:
    """Make the file with the token for this user's local Ray. Only this user can read the file.

    If the file exists, only its permissions are changed. If environment variables give a token or
    turn tokens off, nothing is done. Ray itself would make a file that every user of this machine
    can read.

    Raises:
        UserError: the file cannot be made.
    """
    names = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    if os.environ.get("RAY_AUTH_MODE", "token") != "token" or any(map(os.environ.get, names)):
        return
    try:
        path = Path.home() / ".ray" / "auth_token"
        make_secret(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home
        raise UserError(
            f"Ray did not start, because its token cannot be stored ({error}): set HOME to a "
            f"folder that you can write{otherwise}"
        ) from error
    with suppress(OSError):  # the file may belong to another user, who shares the token
        path.chmod(0o600)


def _environment() -> dict[str, Any]:
    """Return Ray's runtime environment for actors: each actor computes with one thread.

    Ray sets these variables before any library of the actor reads them.
    """
    return {"env_vars": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}}
