"""Let Ctrl-C and SIGTERM stop a command in the same way, and let the command end undisturbed."""

import atexit
import signal
import threading
import time
from typing import Any

SECONDS_TO_END = 10.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def stop_on_signals() -> list[int]:
    """Let the first Ctrl-C or SIGTERM raise KeyboardInterrupt, and ignore more of them for a while.

    Users press Ctrl-C several times. A second KeyboardInterrupt would break off the end of the
    command: actors would be left, and the lock would still name its holder. After SECONDS_TO_END
    seconds, a signal raises KeyboardInterrupt again, in case the end takes too long.

    A signal may end a driver at any point, even during a commit, and nothing is flushed on the way
    out. This is safe: a commit has happened if and only if its log file exists, and its masks are
    on disk before that file exists.

    The handlers stay until the interpreter ends, because its own end takes a moment too. The
    interpreter then removes its handlers, and a signal would kill the process with another exit
    code. So both signals are ignored just before.

    Returns:
        The list to which each signal that raises KeyboardInterrupt adds its number. It stays empty
        outside the main thread, where Python allows no handlers.
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
