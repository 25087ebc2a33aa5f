"""Compile the kernels before the first unit, and show the progress.

Numba compiles a kernel when the kernel is first called, and stores the result on disk. So the first
run after installing compiles, which takes up to a minute on one core. Without this module, every
actor would compile the same kernels, and the user would not see why the run makes no progress.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from numba.core.event import Event, Listener, install_listener

from harness.reporting.display import Display

logger = logging.getLogger("harness")

_BAR = "compiling"


class _Compiles(Listener):  # type: ignore[misc]  # numba has no types
    """A listener that notes whether Numba compiles a kernel. Loading from disk does not count."""

    def __init__(self, begin: Callable[[], None]) -> None:
        self.any, self._begin = False, begin

    def on_start(self, event: Event) -> None:
        if not self.any:
            self.any = True
            self._begin()

    def on_end(self, event: Event) -> None:
        pass


def compile_kernels(rehearsals: Sequence[Callable[[], object]], display: Display) -> None:
    """Run small computations that call every kernel. If Numba compiles a kernel, show the progress.

    Args:
        rehearsals: the computations, which together call every kernel that the units need.
        display: shows the progress.
    """
    done = 0

    def begin() -> None:
        logger.info(
            "compiling the kernels for this machine: only the first run after installing does this"
        )
        display.add(_BAR, len(rehearsals), done, "forms", measure="")

    compiles, began = _Compiles(begin), time.monotonic()
    with install_listener("numba:compile", compiles):
        for rehearsal in rehearsals:
            with suppress(Exception):  # the unit meets the same error, and the driver reports it
                rehearsal()
            done += 1
            if compiles.any:
                display.update(_BAR, done, None)
    if compiles.any:
        logger.info("compiled in %.0f s; later runs load the kernels", time.monotonic() - began)
