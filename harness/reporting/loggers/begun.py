"""The loggers of one run that have begun. A logger that fails never ends the run."""

import logging
from collections.abc import Mapping

from harness.errors import one_line
from harness.reporting.loggers.protocol import Logger

logger = logging.getLogger("harness")


class Begun:
    """Passes numbers to all loggers of a run.

    If a logger raises an error, a warning is logged, and the logger gets no more numbers.

    Args:
        loggers: name -> logger that has begun.
        failed: the names of the loggers that have failed. Several runs may share this set; a logger
            that fails for one of them then gets no more numbers of the others either.
    """

    def __init__(self, loggers: Mapping[str, Logger], failed: set[str] | None = None) -> None:
        self._loggers = loggers
        self._failed = set() if failed is None else failed

    def log(self, values: Mapping[str, float], at: int) -> None:
        """Add numbers; see Logger.log."""
        for name, one in self._loggers.items():
            if name not in self._failed:
                try:
                    one.log(values, at)
                except Exception as error:
                    self._failed.add(name)
                    warn_of_failure(name, error)

    def end(self, *, failed: bool = False) -> None:
        """Close all copies; see Logger.end."""
        for name, one in self._loggers.items():
            try:
                one.end(failed=failed)
            except Exception as error:
                logger.warning("the logger %s could not end: %s", name, one_line(error))


def warn_of_failure(name: str, error: Exception) -> None:
    """Log a warning that the command continues without a logger."""
    logger.warning(
        "the logger %s failed, and the command goes on without it: %s", name, one_line(error)
    )
