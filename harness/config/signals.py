"""Let Ctrl-C and SIGTERM stop a command in the same way, and let the command end undisturbed."""

import atexit
import signal
import threading
import time
from typing import Any

SECONDS_TO_END = 10.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def stop_on_signals() -> list[int]:
    """Let the first Ctrl-C or SIGTERM raise KeyboardInterrupt, and then ignore both for a time.

    Users press Ctrl-C several times. A second KeyboardInterrupt would interrupt the command while
    it stops its actors and releases its lock. But if the command takes too long to end, the user
    must be able to stop it: after SECONDS_TO_END seconds, a signal raises KeyboardInterrupt again.

    A signal may end a driver at any point, even during a commit, and the driver then flushes no
    file. This is safe: a commit counts only if its log file exists, and the masks of the commit are
    on disk before this file exists.

    The handlers stay until the interpreter ends. At its end, the interpreter removes its handlers,
    and a signal would then kill the process with another exit code. So both signals are ignored
    just before this moment.

    Returns:
        A list. Each signal that raises KeyboardInterrupt adds its number to the list. Outside the
        main thread, Python allows no handlers, so the list stays empty.
    """
    stopped_by: list[int] = []
    quiet_until = 0.0

    def stop(number: int, frame: Any) -> None:
        nonlocal quiet_until
        now = time.monotonic()
        if stopped_by and now <= quiet_until:
            return
        quiet_until = now + SECONDS_TO_END
        stopped_by.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for one in SIGNALS:
            signal.signal(one, stop)
        # Functions that are registered first run last: after those of Ray and of torch.
        atexit.register(_ignore_signals)
    return stopped_by


def _ignore_signals() -> None:
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)
