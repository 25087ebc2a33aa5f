"""The protocol of a logger, and the function that begins the loggers of a run.

A logger copies numbers from the tables of a run to a program that shows experiments. Only the
driver has loggers. No result depends on a logger.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.config.schema import LOGGERS
from harness.errors import UserError, one_line
from supsup_core.names import load


@dataclass(frozen=True)
class Logged:
    """The run that a logger copies.

    Attributes:
        directory: the run directory.
        identity: text of letters and digits. It is the same in each start of the run, and differs
            from the texts of other run directories.
        options: dotted key, such as train.steps -> value.
    """

    directory: Path
    identity: str
    options: Mapping[str, Any]


class Logger(Protocol):
    """A copy of a run in another program. The functions are called in the order begin, log, end."""

    def begin(self, run: Logged) -> None:
        """Open the copy of a run. If an earlier start has made this copy, continue it.

        Raises:
            Exception: the program cannot be used, for example because it needs a key.
        """
        ...

    def log(self, values: Mapping[str, float], num_masks: int) -> None:
        """Add numbers.

        Args:
            values: name, such as tasks/accuracy -> number. A name consists of words of letters,
                digits and underscores, with slashes between the words.
            num_masks: number of masks to which the numbers belong. The calls need not be in the
                order of these numbers. The same name and number may come again, with the same
                value, after the run was stopped.

        Raises:
            Exception: the numbers cannot be written. The logger is then not called again, except
                `end`.
        """
        ...

    def end(self) -> None:
        """Write all numbers, and close the copy."""
        ...


def check_packages(names: Sequence[str]) -> None:
    """Import the packages of loggers.

    Args:
        names: names of loggers, keys of LOGGERS.

    Raises:
        UserError: a package is not installed.
    """
    for name in names:
        try:
            load("loggers", LOGGERS, name)
        except ModuleNotFoundError as error:
            raise UserError(
                f"loggers=[{name}] needs the package {error.name}, which is not installed: type "
                "python -m pip install --constraint constraints.txt -e '.[loggers]', or loggers=[]"
            ) from error


def begin_loggers(names: Sequence[str], run: Logged) -> dict[str, Logger]:
    """Make loggers, and let them begin.

    Args:
        names: names of loggers, keys of LOGGERS.
        run: the run to copy.

    Returns:
        Name -> logger.

    Raises:
        UserError: a logger cannot begin. The other loggers have ended.
    """
    found: dict[str, Logger] = {}
    with ExitStack() as begun:
        for name in names:
            found[name] = load("loggers", LOGGERS, name)()
            try:
                found[name].begin(run)
            except Exception as error:
                raise UserError(
                    f"loggers=[{name}] must be able to begin, got {one_line(error)}: follow this "
                    "message, or leave the logger out"
                ) from error
            begun.callback(found[name].end)
        begun.pop_all()
    return found
